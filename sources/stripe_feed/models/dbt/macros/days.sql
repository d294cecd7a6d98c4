{# The first instant of the day. #}
{% macro day_start(moment) %}{{ return(adapter.dispatch('day_start', 'stripe_feed')(moment)) }}{% endmacro %}
{% macro default__day_start(moment) %}cast(date_trunc('day', {{ moment }}) as timestamp){% endmacro %}
{% macro snowflake__day_start(moment) %}date_trunc('day', {{ moment }})::timestamp_ntz{% endmacro %}
{% macro bigquery__day_start(moment) %}datetime_trunc({{ moment }}, day){% endmacro %}
{% macro spark__day_start(moment) %}cast(date_trunc('day', {{ moment }}) as timestamp_ntz){% endmacro %}
{% macro databricks__day_start(moment) %}cast(date_trunc('day', {{ moment }}) as timestamp_ntz){% endmacro %}
{% macro clickhouse__day_start(moment) %}toDateTime64(toStartOfDay({{ moment }}), 6, 'UTC'){% endmacro %}
{% macro trino__day_start(moment) %}date_trunc('day', {{ moment }}){% endmacro %}
{% macro athena__day_start(moment) %}date_trunc('day', {{ moment }}){% endmacro %}

{# The month and the day of a UTC moment in `reporting_timezone`, as a date; of the month its first day. #}
{% macro month_of(moment) %}cast({{ month_start(local_time(moment)) }} as date){% endmacro %}
