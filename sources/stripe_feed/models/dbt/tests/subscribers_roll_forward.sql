{# Each day begins with the subscribers of the day before. #}
select day, active_subscribers, new_subscribers, reactivated_subscribers, churned_subscribers, active_before
from (
    select
        metrics.*,
        coalesce(lag({{ nullable('metrics.active_subscribers') }}) over (order by metrics.day), 0) as active_before
    from {{ ref('subscriber_metrics_daily') }} as metrics
) as days
where active_before + new_subscribers + reactivated_subscribers - churned_subscribers <> active_subscribers
