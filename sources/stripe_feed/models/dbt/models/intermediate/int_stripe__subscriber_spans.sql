with paid as (
    select
        customer_id,
        subscription_id,
        valid_from,
        valid_to
    from {{ ref('int_stripe__net_mrr') }}
    where mrr > 0
),

trials as (
    select
        subscription_id,
        customer_id,
        trial_start_at,
        trial_end_at,
        outcome,
        over_at,
        is_of_payer
    from {{ ref('trial_conversions') }}
),

resumed as (
    select
        trials.subscription_id as subscription_id,
        trials.trial_start_at as trial_start_at,
        min(case when paid.valid_from < trials.trial_end_at then trials.trial_end_at else paid.valid_from end) as resumed_at
    from trials
    inner join paid on trials.subscription_id = paid.subscription_id
    where paid.valid_to is null or paid.valid_to > trials.trial_end_at
    group by trials.subscription_id, trials.trial_start_at
),

bridged as (
    select
        customer_id,
        valid_from,
        valid_to
    from paid
    union all
    select
        trials.customer_id as customer_id,
        trials.trial_start_at as valid_from,
        case
            when trials.outcome = 'running' then null
            when trials.outcome in ('converted', 'expired') then coalesce(resumed.resumed_at, trials.over_at)
            else trials.over_at
        end as valid_to
    from trials
    left join resumed on trials.subscription_id = resumed.subscription_id and trials.trial_start_at = resumed.trial_start_at
    where trials.is_of_payer
),

{#- Equal spans have no order: each is here once. #}
spans as (
    select distinct
        customer_id,
        valid_from,
        valid_to
    from bridged
),

reached as (
    select
        customer_id,
        valid_from,
        valid_to,
        max(coalesce(valid_to, {{ forever() }})) over (
            partition by customer_id
            order by valid_from, coalesce(valid_to, {{ forever() }})
            rows between unbounded preceding and 1 preceding
        ) as reached_until
    from spans
    where valid_to is null or valid_to > valid_from
),

islands as (
    select
        customer_id,
        valid_from,
        valid_to,
        sum(case when reached_until is null or valid_from > reached_until then 1 else 0 end) over (
            partition by customer_id
            order by valid_from, coalesce(valid_to, {{ forever() }})
            rows between unbounded preceding and current row
        ) as island
    from reached
)

select
    customer_id,
    min(valid_from) as valid_from,
    case when count(valid_to) = count(*) then max(valid_to) end as valid_to
from islands
group by customer_id, island
