{# What is known of a subscription before its first change: the state before that change, or the current row. #}
with changes as (
    select
        subscription_id,
        change_id,
        op,
        changed_at,
        max(case when side = 'before' then 1 else 0 end) as has_before,
        row_number() over (partition by subscription_id order by changed_at, load_id, load_seq, change_id) as position
    from {{ ref('int_stripe__subscription_images') }}
    group by subscription_id, change_id, op, changed_at, load_id, load_seq
),

firsts as (
    select subscription_id, change_id, changed_at, case when has_before = 1 then 'before' else 'after' end as side
    from changes
    where position = 1
),

states as (
    select
        images.subscription_id as subscription_id,
        max(images.customer_id) as customer_id,
        max(images.status) as status,
        max(images.created_at) as created_at,
        max(images.started_at) as started_at,
        max(images.trial_start_at) as trial_start_at,
        max(images.trial_end_at) as trial_end_at,
        max(images.canceled_at) as canceled_at,
        max(images.ended_at) as ended_at,
        max(images.paused_at) as paused_at,
        max(images.period_start_at) as period_start_at,
        max(images.collection_pause_behavior) as collection_pause_behavior,
        max(images.subscription_discounts) as subscription_discounts,
        max(firsts.changed_at) as first_changed_at,
        max(firsts.change_id) as change_id,
        max(firsts.side) as side
    from firsts
    inner join {{ ref('int_stripe__subscription_images') }} as images on images.change_id = firsts.change_id and images.side = firsts.side
    group by images.subscription_id
    union all
    select
        subscriptions.subscription_id as subscription_id,
        subscriptions.customer_id as customer_id,
        subscriptions.status as status,
        subscriptions.created_at as created_at,
        coalesce(subscriptions.started_at, subscriptions.created_at) as started_at,
        subscriptions.trial_start_at as trial_start_at,
        subscriptions.trial_end_at as trial_end_at,
        subscriptions.canceled_at as canceled_at,
        subscriptions.ended_at as ended_at,
        subscriptions.paused_at as paused_at,
        items.period_start_at as period_start_at,
        subscriptions.collection_pause_behavior as collection_pause_behavior,
        subscriptions.discount_ids as subscription_discounts,
        cast(null as {{ type_timestamp() }}) as first_changed_at,
        cast(null as {{ type_text() }}) as change_id,
        cast(null as {{ type_text() }}) as side
    from {{ ref('stg_stripe__subscriptions') }} as subscriptions
    left join firsts on firsts.subscription_id = subscriptions.subscription_id
    left join (
        select subscription_id, max(period_start_at) as period_start_at
        from {{ ref('stg_stripe__subscription_items') }}
        group by subscription_id
    ) as items on items.subscription_id = subscriptions.subscription_id
    where firsts.subscription_id is null
),

paid as (
    select subscription_id, max(period_end_at) as paid_until
    from {{ ref('int_stripe__item_periods') }}
    where is_paid and amount > 0
    group by subscription_id
),

with_trial as (
    select
        states.*,
        coalesce(states.trial_end_at > states.trial_start_at, false) and states.status not in ('incomplete', 'incomplete_expired') as has_trial,
        paid.paid_until as paid_until
    from states
    left join paid on paid.subscription_id = states.subscription_id
)

select
    subscription_id,
    customer_id,
    status,
    created_at,
    started_at,
    case when has_trial then trial_start_at end as trial_start_at,
    case when has_trial then trial_end_at end as trial_end_at,
    canceled_at,
    case when status = 'canceled' then coalesce(ended_at, canceled_at) else ended_at end as ended_at,
    collection_pause_behavior,
    subscription_discounts,
    first_changed_at,
    change_id,
    side,
    {#- From here on the subscription has its own status, never before the end of its trial; before, it is taken to have been active. #}
    greatest(
        case status
            when 'canceled' then coalesce(ended_at, canceled_at, {{ forever() }})
            when 'past_due' then coalesce(period_start_at, started_at)
            when 'paused' then coalesce(paused_at, started_at)
            when 'unpaid' then coalesce(paid_until, started_at)
            else started_at
        end,
        case when has_trial then trial_end_at else started_at end
    ) as status_from
from with_trial
