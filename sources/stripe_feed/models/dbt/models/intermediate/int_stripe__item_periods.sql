{# What invoices billed for subscription items: one row per item and period. #}
select
    subscription_item_id,
    subscription_id,
    customer_id,
    period_start_at,
    period_end_at,
    line_item_id,
    price_id,
    product_id,
    currency,
    unit_amount,
    quantity,
    amount,
    is_paid
from (
    select
        lines.subscription_item_id as subscription_item_id,
        lines.subscription_id as subscription_id,
        lines.customer_id as customer_id,
        lines.period_start_at as period_start_at,
        lines.period_end_at as period_end_at,
        lines.line_item_id as line_item_id,
        lines.price_id as price_id,
        lines.product_id as product_id,
        lines.currency as currency,
        lines.unit_amount as unit_amount,
        cast(lines.quantity as {{ type_bigint() }}) as quantity,
        lines.amount as amount,
        lines.status = 'paid' as is_paid,
        row_number() over (
            partition by lines.subscription_item_id, lines.period_start_at
            order by lines.finalized_at desc, lines.line_item_id desc
        ) as position
    from {{ ref('int_stripe__invoiced_lines') }} as lines
    where
        lines.subscription_item_id is not null
        and lines.subscription_id is not null
        and not lines.is_proration
        and lines.period_end_at > lines.period_start_at
) as billed
where position = 1
