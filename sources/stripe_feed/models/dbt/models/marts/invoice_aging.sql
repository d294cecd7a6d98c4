{{ config(materialized='view') }}

with unpaid as (
    select
        invoices.invoice_id as invoice_id,
        invoices.customer_id as customer_id,
        invoices.subscription_id as subscription_id,
        invoices.currency as currency,
        invoices.status as status,
        invoices.collection_method as collection_method,
        invoices.amount_due as amount_due,
        invoices.amount_paid as amount_paid,
        invoices.amount_remaining as amount_remaining,
        invoices.attempt_count as attempt_count,
        invoices.next_payment_attempt_at as next_payment_attempt_at,
        coalesce(invoices.due_at, invoices.finalized_at, invoices.created_at) as due_at,
        {{ as_of() }} as as_of
    from {{ ref('stg_stripe__invoices') }} as invoices
    where invoices.status in ('open', 'uncollectible') and invoices.amount_remaining > 0 and not invoices.is_deleted
),

aged as (
    select
        unpaid.*,
        case when unpaid.due_at < unpaid.as_of then {{ days_between(local_time('unpaid.due_at'), local_time('unpaid.as_of')) }} else 0 end as days_overdue
    from unpaid
)

select
    invoice_id,
    customer_id,
    subscription_id,
    currency,
    status,
    collection_method,
    amount_due,
    amount_paid,
    amount_remaining,
    {{ major('amount_remaining', 'currency') }} as amount_remaining_major,
    due_at,
    cast(days_overdue as {{ type_bigint() }}) as days_overdue,
    case
        when status = 'uncollectible' then 'uncollectible'
        when days_overdue = 0 then 'current'
        when days_overdue <= 30 then '1-30'
        when days_overdue <= 60 then '31-60'
        when days_overdue <= 90 then '61-90'
        else '90+'
    end as bucket,
    status = 'open' and days_overdue > 0 as is_overdue,
    attempt_count,
    next_payment_attempt_at,
    as_of
from aged
