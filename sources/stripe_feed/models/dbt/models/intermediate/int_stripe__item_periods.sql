{# What invoices billed for subscription items: one row per item and period. #}
{{ config(materialized='view') }}

select
    subscription_item_id,
    subscription_id,
    customer_id,
    period_start_at,
    period_end_at,
    next_period_start_at,
    first_period_start_at,
    line_item_id,
    price_id,
    product_id,
    currency,
    unit_amount,
    quantity,
    amount,
    status = 'paid' as is_paid
from {{ ref('int_stripe__invoiced_lines') }}
where is_item_period
