{{ config(materialized='view') }}

with subscribed as (
    select
        customer_id,
        count(*) as subscriptions,
        sum(case when status in ('active', 'past_due', 'trialing') then 1 else 0 end) as active_subscriptions,
        sum(case when status = 'active' then 1 else 0 end) as active,
        sum(case when status = 'past_due' then 1 else 0 end) as past_due,
        sum(case when status = 'trialing' then 1 else 0 end) as trialing,
        sum(case when status = 'paused' then 1 else 0 end) as paused,
        sum(case when status in ('canceled', 'unpaid') then 1 else 0 end) as ended,
        sum(case when status in ('active', 'past_due', 'trialing') and (cancel_at_period_end or cancels_at is not null) then 1 else 0 end) as ending,
        max(currency) as currency
    from {{ ref('stg_stripe__subscriptions') }}
    where not is_deleted
    group by customer_id
),

invoiced as (
    select
        customer_id,
        min(case when amount_paid > 0 then paid_at end) as first_paid_at,
        max(case when status <> 'draft' then coalesce(finalized_at, created_at) end) as last_invoice_at,
        max(currency) as currency,
        sum(case when status = 'open' and attempt_count > 0 then 1 else 0 end) as failing_invoices
    from {{ ref('stg_stripe__invoices') }}
    where not is_deleted
    group by customer_id
),

chosen as (
    select
        customers.customer_id as customer_id,
        customers.name as name,
        customers.email as email,
        customers.created_at as created_at,
        customers.is_deleted as is_deleted,
        coalesce(customers.currency, subscribed.currency, invoiced.currency) as currency,
        invoiced.first_paid_at as first_paid_at,
        invoiced.last_invoice_at as last_invoice_at,
        coalesce(invoiced.failing_invoices, 0) as failing_invoices,
        coalesce(subscribed.subscriptions, 0) as subscriptions,
        coalesce(subscribed.active_subscriptions, 0) as active_subscriptions,
        coalesce(subscribed.active, 0) as active,
        coalesce(subscribed.past_due, 0) as past_due,
        coalesce(subscribed.trialing, 0) as trialing,
        coalesce(subscribed.paused, 0) as paused,
        coalesce(subscribed.ended, 0) as ended,
        coalesce(subscribed.ending, 0) as ending
    from {{ ref('stg_stripe__customers') }} as customers
    left join subscribed on customers.customer_id = subscribed.customer_id
    left join invoiced on customers.customer_id = invoiced.customer_id
),

paying as (
    select
        customer_id,
        currency,
        sum(mrr) as mrr
    from {{ ref('int_stripe__net_mrr') }} as items
    where {{ in_force('items', as_of()) }}
    group by customer_id, currency
),

totals as (
    select
        customer_id,
        sum(mrr) as any_mrr
    from paying
    group by customer_id
),

paid as (
    select
        customer_id,
        currency,
        sum(amount_paid) as lifetime_paid
    from {{ ref('stg_stripe__invoices') }}
    where not is_deleted
    group by customer_id, currency
),

owed as (
    select
        customer_id,
        currency,
        sum(case when status = 'open' then amount_remaining else 0 end) as open_amount,
        sum(case when is_overdue then amount_remaining else 0 end) as overdue_amount
    from {{ ref('invoice_aging') }}
    group by customer_id, currency
)

select
    chosen.customer_id as customer_id,
    chosen.name as name,
    chosen.email as email,
    chosen.created_at as created_at,
    chosen.is_deleted as is_deleted,
    case
        when chosen.past_due > 0 then 'past_due'
        when chosen.active > 0 then 'active'
        when chosen.trialing > 0 then 'trial'
        when chosen.paused > 0 then 'paused'
        when chosen.ended > 0 then 'churned'
        else 'lead'
    end as status,
    coalesce(totals.any_mrr, 0) > 0 as is_paying,
    chosen.first_paid_at as first_paid_at,
    chosen.last_invoice_at as last_invoice_at,
    chosen.currency as currency,
    cast(coalesce(paying.mrr, 0) as {{ type_bigint() }}) as mrr,
    {{ major('coalesce(paying.mrr, 0)', 'chosen.currency') }} as mrr_major,
    cast(coalesce(12 * paying.mrr, 0) as {{ type_bigint() }}) as arr,
    cast(coalesce(paid.lifetime_paid, 0) as {{ type_bigint() }}) as lifetime_paid,
    {{ major('coalesce(paid.lifetime_paid, 0)', 'chosen.currency') }} as lifetime_paid_major,
    cast(coalesce(owed.open_amount, 0) as {{ type_bigint() }}) as open_amount,
    cast(coalesce(owed.overdue_amount, 0) as {{ type_bigint() }}) as overdue_amount,
    cast(chosen.subscriptions as {{ type_bigint() }}) as subscriptions,
    cast(chosen.active_subscriptions as {{ type_bigint() }}) as active_subscriptions,
    chosen.past_due > 0 or chosen.ending > 0 or chosen.failing_invoices > 0 as is_at_risk,
    case
        when chosen.past_due > 0 then 'past_due'
        when chosen.ending > 0 then 'ending'
        when chosen.failing_invoices > 0 then 'payment_failing'
    end as risk,
    {{ as_of() }} as as_of
from chosen
left join paying on chosen.customer_id = paying.customer_id and chosen.currency = paying.currency
left join totals on chosen.customer_id = totals.customer_id
left join paid on chosen.customer_id = paid.customer_id and chosen.currency = paid.currency
left join owed on chosen.customer_id = owed.customer_id and chosen.currency = owed.currency
