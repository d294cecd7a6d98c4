{# The calendar that every monthly model runs over. #}
with bounds as (
    select
        coalesce(min({{ month_start(local_time('history.valid_from')) }}), {{ month_start(local_time(as_of())) }}) as first_month,
        {{ month_start(local_time(as_of())) }} as last_month,
        {{ as_of() }} as as_of
    from {{ ref('subscription_item_history') }} as history
),

starts as (
    select
        numbers.n + 1 as month_number,
        {{ add_months('bounds.first_month', 'numbers.n') }} as opens,
        {{ add_months('bounds.first_month', 'numbers.n + 1') }} as closes,
        bounds.last_month as last_month,
        bounds.as_of as as_of
    from bounds
    cross join {{ numbers() }} as numbers
)

select
    cast(opens as date) as month,
    month_number,
    {{ utc_time('opens') }} as opens_at,
    case when {{ utc_time('closes') }} <= as_of then {{ utc_time('closes') }} else as_of end as closes_at,
    {{ utc_time('closes') }} <= as_of as is_complete,
    as_of
from starts
where opens <= last_month
