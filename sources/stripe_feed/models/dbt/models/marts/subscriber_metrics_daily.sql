with spans as (
    select
        customer_id,
        {{ day_start(local_time('valid_from')) }} as first_day,
        {{ day_start(local_time('valid_to')) }} as left_day
    from {{ ref('int_stripe__subscriber_spans') }}
),

lasting as (
    select
        customer_id,
        first_day,
        left_day,
        lag({{ nullable('left_day') }}) over (partition by customer_id order by first_day) as earlier_left_day,
        row_number() over (partition by customer_id order by first_day) as number_of_span
    from spans
    where left_day is null or left_day > first_day
),

entered as (
    select
        lasting.first_day as day,
        sum(case when lasting.number_of_span = 1 then 1 else 0 end) as new_subscribers,
        sum(case when lasting.number_of_span > 1 then 1 else 0 end) as reactivated_subscribers
    from lasting
    where lasting.earlier_left_day is null or lasting.earlier_left_day <> lasting.first_day
    group by lasting.first_day
),

churned as (
    select
        spans.left_day as day,
        count(*) as churned_subscribers
    from lasting as spans
    left join lasting as following on spans.customer_id = following.customer_id and spans.left_day = following.first_day
    where spans.left_day is not null and following.customer_id is null
    group by spans.left_day
),

ended as (
    select
        {{ day_start(local_time('over_at')) }} as day,
        count(*) as trials_ended,
        sum(case when outcome = 'converted' then 1 else 0 end) as trials_converted
    from {{ ref('trial_conversions') }}
    where is_in_conversion_rate
    group by {{ day_start(local_time('over_at')) }}
),

bounds as (
    select min(day) as first_day
    from (
        select day from entered
        union all
        select day from ended
    ) as happened
),

days as (
    select
        {{ add_days('bounds.first_day', 'numbers.n') }} as day
    from bounds
    cross join (
        select tens.n * 512 + ones.n as n
        from {{ numbers() }} as ones
        cross join (select n from {{ numbers() }} as all_tens where n < 40) as tens
    ) as numbers
    where numbers.n <= {{ days_between('bounds.first_day', local_time(as_of())) }}
),

daily as (
    select
        days.day as day,
        coalesce(entered.new_subscribers, 0) as new_subscribers,
        coalesce(entered.reactivated_subscribers, 0) as reactivated_subscribers,
        coalesce(churned.churned_subscribers, 0) as churned_subscribers,
        coalesce(ended.trials_ended, 0) as trials_ended,
        coalesce(ended.trials_converted, 0) as trials_converted
    from days
    left join entered on days.day = entered.day
    left join churned on days.day = churned.day
    left join ended on days.day = ended.day
),

rolling as (
    select
        day,
        new_subscribers,
        reactivated_subscribers,
        churned_subscribers,
        trials_ended,
        trials_converted,
        sum(new_subscribers + reactivated_subscribers - churned_subscribers) over (order by day rows between unbounded preceding and current row) as active_subscribers,
        sum(new_subscribers + reactivated_subscribers) over (order by day rows between 29 preceding and current row) as new_30_days,
        sum(churned_subscribers) over (order by day rows between 29 preceding and current row) as churned_30_days,
        sum(trials_ended) over (order by day rows between 29 preceding and current row) as trials_ended_30_days,
        sum(trials_converted) over (order by day rows between 29 preceding and current row) as trials_converted_30_days
    from daily
),

counted as (
    select
        day,
        cast(active_subscribers as {{ type_bigint() }}) as active_subscribers,
        cast(new_subscribers as {{ type_bigint() }}) as new_subscribers,
        cast(reactivated_subscribers as {{ type_bigint() }}) as reactivated_subscribers,
        cast(churned_subscribers as {{ type_bigint() }}) as churned_subscribers,
        cast(coalesce(lag({{ nullable('active_subscribers') }}, 30) over (order by day), 0) as {{ type_bigint() }}) as active_30_days_before,
        cast(new_30_days as {{ type_bigint() }}) as new_30_days,
        cast(churned_30_days as {{ type_bigint() }}) as churned_30_days,
        cast(trials_ended_30_days as {{ type_bigint() }}) as trials_ended_30_days,
        cast(trials_converted_30_days as {{ type_bigint() }}) as trials_converted_30_days
    from rolling
)

select
    cast(day as date) as day,
    active_subscribers,
    new_subscribers,
    reactivated_subscribers,
    churned_subscribers,
    active_30_days_before,
    new_30_days,
    churned_30_days,
    {{ ratio('churned_30_days', 'active_30_days_before + new_30_days') }} as churn_rate_30_days,
    trials_ended_30_days,
    trials_converted_30_days,
    {{ ratio('trials_converted_30_days', 'trials_ended_30_days') }} as trial_conversion_rate_30_days
from counted
