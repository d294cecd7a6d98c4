{{ config(materialized='view') }}

select
    invoice_id,
    customer_id,
    subscription_id,
    currency,
    collection_method,
    amount_due,
    amount_paid,
    amount_remaining,
    amount_remaining_major,
    due_at,
    days_overdue,
    bucket,
    attempt_count,
    next_payment_attempt_at,
    as_of
from {{ ref('invoice_aging') }}
where is_overdue
