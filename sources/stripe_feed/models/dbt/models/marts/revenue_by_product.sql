with invoiced as (
    select
        {{ month_of('lines.finalized_at') }} as month,
        lines.product_id as product_id,
        lines.price_id as price_id,
        lines.currency as currency,
        lines.customer_id as customer_id,
        lines.status as status,
        lines.is_proration as is_proration,
        lines.discount_amount as discount_amount,
        lines.amount - lines.discount_amount - lines.inclusive_tax as amount
    from {{ ref('int_stripe__invoiced_lines') }} as lines
),

summed as (
    select
        month,
        product_id,
        price_id,
        currency,
        count(*) as line_items,
        count(distinct customer_id) as customers,
        sum(amount) as revenue,
        sum(case when is_proration then amount else 0 end) as proration_revenue,
        sum(case when status = 'paid' then amount else 0 end) as paid_revenue,
        sum(case when status = 'uncollectible' then amount else 0 end) as uncollectible_revenue,
        sum(discount_amount) as discount_amount
    from invoiced
    group by month, product_id, price_id, currency
)

select
    summed.month as month,
    summed.product_id as product_id,
    products.name as product_name,
    summed.price_id as price_id,
    summed.currency as currency,
    summed.line_items as line_items,
    summed.customers as customers,
    cast(summed.revenue as {{ type_bigint() }}) as revenue,
    {{ major('summed.revenue', 'summed.currency') }} as revenue_major,
    cast(summed.proration_revenue as {{ type_bigint() }}) as proration_revenue,
    cast(summed.paid_revenue as {{ type_bigint() }}) as paid_revenue,
    cast(summed.uncollectible_revenue as {{ type_bigint() }}) as uncollectible_revenue,
    cast(summed.discount_amount as {{ type_bigint() }}) as discount_amount
from summed
left join {{ ref('stg_stripe__products') }} as products on summed.product_id = products.product_id
