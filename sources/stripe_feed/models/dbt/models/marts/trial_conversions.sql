{{ config(materialized='view') }}

with observed as (
    select
        images.subscription_id as subscription_id,
        images.trial_start_at as trial_start_at,
        images.trial_end_at as trial_end_at,
        row_number() over (
            partition by images.subscription_id, images.trial_start_at
            order by images.changed_at desc, images.load_id desc, images.load_seq desc, images.side
        ) as newest
    from {{ ref('int_stripe__subscription_images') }} as images
    where images.trial_start_at is not null and images.trial_end_at is not null
),

trials as (
    select
        subscriptions.subscription_id as subscription_id,
        subscriptions.trial_start_at as trial_start_at,
        subscriptions.trial_end_at as trial_end_at
    from {{ ref('stg_stripe__subscriptions') }} as subscriptions
    where subscriptions.trial_start_at is not null and subscriptions.trial_end_at is not null
    union all
    select
        observed.subscription_id as subscription_id,
        observed.trial_start_at as trial_start_at,
        observed.trial_end_at as trial_end_at
    from observed
    inner join {{ ref('stg_stripe__subscriptions') }} as subscriptions on observed.subscription_id = subscriptions.subscription_id
    where observed.newest = 1 and (subscriptions.trial_start_at is null or subscriptions.trial_start_at <> observed.trial_start_at)
),

payments as (
    select
        trials.subscription_id as subscription_id,
        trials.trial_start_at as trial_start_at,
        min(invoices.paid_at) as converted_at
    from trials
    inner join {{ ref('stg_stripe__invoices') }} as invoices on trials.subscription_id = invoices.subscription_id
    where
        invoices.status = 'paid'
        and invoices.amount_paid > 0
        and invoices.created_at >= trials.trial_end_at
        and not invoices.is_deleted
    group by trials.subscription_id, trials.trial_start_at
),

payers as (
    select distinct
        trials.subscription_id as subscription_id,
        trials.trial_start_at as trial_start_at
    from trials
    inner join {{ ref('stg_stripe__subscriptions') }} as subscriptions on trials.subscription_id = subscriptions.subscription_id
    inner join {{ ref('int_stripe__net_mrr') }} as items on subscriptions.customer_id = items.customer_id
    where items.mrr > 0 and items.valid_from < trials.trial_start_at and (items.valid_to is null or items.valid_to >= trials.trial_start_at)
),

outcomes as (
    select
        trials.subscription_id as subscription_id,
        subscriptions.customer_id as customer_id,
        trials.trial_start_at as trial_start_at,
        trials.trial_end_at as trial_end_at,
        subscriptions.ended_at as ended_at,
        payments.converted_at as paid_at,
        payers.subscription_id is not null as is_of_payer,
        {{ as_of() }} as as_of,
        case
            when subscriptions.ended_at <= trials.trial_end_at then 'canceled'
            when trials.trial_end_at > {{ as_of() }} then 'running'
            when payments.converted_at is not null then 'converted'
            when subscriptions.ended_at is not null then 'canceled'
            when subscriptions.status = 'paused' then 'paused'
            else 'expired'
        end as outcome
    from trials
    inner join {{ ref('stg_stripe__subscriptions') }} as subscriptions on trials.subscription_id = subscriptions.subscription_id
    left join payments on trials.subscription_id = payments.subscription_id and trials.trial_start_at = payments.trial_start_at
    left join payers on trials.subscription_id = payers.subscription_id and trials.trial_start_at = payers.trial_start_at
)

select
    subscription_id,
    customer_id,
    trial_start_at,
    trial_end_at,
    outcome,
    case outcome when 'running' then null when 'canceled' then ended_at else trial_end_at end as over_at,
    case when outcome = 'converted' then paid_at end as converted_at,
    is_of_payer,
    outcome in ('converted', 'canceled'){% if var('payer_trials') == 'excluded' %} and not is_of_payer{% endif %} as is_in_conversion_rate,
    as_of
from outcomes
