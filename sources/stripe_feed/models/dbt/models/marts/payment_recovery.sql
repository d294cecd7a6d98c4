with attempted as (
    select
        invoices.invoice_id as invoice_id,
        invoices.customer_id as customer_id,
        invoices.subscription_id as subscription_id,
        invoices.currency as currency,
        invoices.status as status,
        invoices.amount_due as amount_due,
        invoices.amount_paid as amount_paid,
        invoices.attempt_count as attempt_count,
        coalesce(invoices.finalized_at, invoices.created_at) as first_attempt_at,
        invoices.paid_at as paid_at,
        invoices.next_payment_attempt_at as next_payment_attempt_at
    from {{ ref('stg_stripe__invoices') }} as invoices
    where
        invoices.collection_method = 'charge_automatically'
        and not invoices.is_deleted
        and invoices.amount_due > 0
        and (invoices.attempt_count > 1 or (invoices.attempt_count = 1 and invoices.status in ('open', 'uncollectible')))
)

select
    attempted.invoice_id as invoice_id,
    attempted.customer_id as customer_id,
    attempted.subscription_id as subscription_id,
    attempted.currency as currency,
    {{ month_of('attempted.first_attempt_at') }} as month,
    attempted.first_attempt_at as first_attempt_at,
    attempted.attempt_count as attempt_count,
    attempted.amount_due as amount_due,
    case when attempted.status = 'paid' then attempted.amount_paid else 0 end as amount_recovered,
    case
        when attempted.status = 'paid' then 'recovered'
        when attempted.status = 'open' and attempted.next_payment_attempt_at is not null then 'retrying'
        when attempted.status = 'open' then 'open'
        else 'lost'
    end as outcome,
    attempted.status = 'paid' as is_recovered,
    case when attempted.status = 'paid' then attempted.paid_at end as recovered_at,
    case when attempted.status = 'paid' then cast({{ days_between(local_time('attempted.first_attempt_at'), local_time('attempted.paid_at')) }} as {{ type_bigint() }}) end as days_to_recover,
    coalesce(subscriptions.ended_at is not null and subscriptions.cancellation_reason = 'payment_failed', false) as has_led_to_churn
from attempted
left join {{ ref('stg_stripe__subscriptions') }} as subscriptions on attempted.subscription_id = subscriptions.subscription_id
