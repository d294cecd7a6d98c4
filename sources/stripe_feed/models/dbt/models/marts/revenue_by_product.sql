with discounted as (
    select
        line_item_id,
        sum(cast({{ json_text('element', 'amount') }} as {{ type_bigint() }})) as discount_amount
    from {{ json_rows(ref('stg_stripe__invoice_line_items'), 'discount_amounts', '', ['line_item_id']) }} as discount_amounts
    group by line_item_id
),

inclusive as (
    select
        line_item_id,
        cast({{ json_text('element', 'amount') }} as {{ type_bigint() }}) as amount
    from {{ json_rows(ref('stg_stripe__invoice_line_items'), 'taxes', '', ['line_item_id']) }} as taxes
    where {{ json_text('element', 'tax_behavior') }} = 'inclusive'
    union all
    select
        line_item_id,
        cast({{ json_text('element', 'amount') }} as {{ type_bigint() }}) as amount
    from {{ json_rows(ref('stg_stripe__invoice_line_items'), 'tax_amounts', '', ['line_item_id']) }} as tax_amounts
    where {{ json_text('element', 'inclusive') }} = 'true'
),

taxed as (
    select
        line_item_id,
        sum(amount) as inclusive_tax
    from inclusive
    group by line_item_id
),

invoiced as (
    select
        {{ month_of('invoices.finalized_at') }} as month,
        lines.product_id as product_id,
        lines.price_id as price_id,
        lines.currency as currency,
        invoices.customer_id as customer_id,
        invoices.status as status,
        lines.is_proration as is_proration,
        lines.quantity as quantity,
        coalesce(discounted.discount_amount, 0) as discount_amount,
        lines.amount - coalesce(discounted.discount_amount, 0) - coalesce(taxed.inclusive_tax, 0) as amount
    from {{ ref('stg_stripe__invoice_line_items') }} as lines
    inner join {{ ref('stg_stripe__invoices') }} as invoices on lines.invoice_id = invoices.invoice_id
    left join discounted on lines.line_item_id = discounted.line_item_id
    left join taxed on lines.line_item_id = taxed.line_item_id
    where invoices.status in ('paid', 'open', 'uncollectible') and invoices.finalized_at is not null and not invoices.is_deleted
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
