{{ config(materialized='view') }}

with periods as (
    select
        subscription_id,
        min(period_end_at) as period_end_at
    from {{ ref('stg_stripe__subscription_items') }}
    group by subscription_id
),

due as (
    select
        subscriptions.subscription_id as subscription_id,
        subscriptions.customer_id as customer_id,
        subscriptions.status as status,
        subscriptions.currency as currency,
        subscriptions.collection_method as collection_method,
        case when subscriptions.status = 'trialing' then subscriptions.trial_end_at else periods.period_end_at end as renews_at,
        subscriptions.cancel_at_period_end as cancel_at_period_end,
        subscriptions.cancels_at as cancels_at,
        {{ as_of() }} as as_of
    from {{ ref('stg_stripe__subscriptions') }} as subscriptions
    inner join periods on subscriptions.subscription_id = periods.subscription_id
    where subscriptions.status in ('trialing', 'active', 'past_due') and not subscriptions.is_deleted
)

select
    due.subscription_id as subscription_id,
    due.customer_id as customer_id,
    due.status as status,
    due.currency as currency,
    due.collection_method as collection_method,
    due.renews_at as renews_at,
    cast({{ days_between(local_time('due.as_of'), local_time('due.renews_at')) }} as {{ type_bigint() }}) as days_until_renewal,
    due.status = 'trialing' as is_trial_end,
    not (due.cancel_at_period_end or coalesce(due.cancels_at <= due.renews_at, false)) as is_renewing,
    due.as_of as as_of
from due
where due.renews_at >= due.as_of and due.renews_at <= {{ add_days('due.as_of', var('renewal_days')) }}
