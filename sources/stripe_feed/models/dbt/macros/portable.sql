{# Types and functions that engines spell differently. `default__` is DuckDB's spelling where it is standard SQL. #}

{% macro type_text() %}{{ return(adapter.dispatch('type_text', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_text() %}varchar{% endmacro %}
{% macro postgres__type_text() %}text{% endmacro %}
{% macro redshift__type_text() %}varchar(65535){% endmacro %}
{% macro bigquery__type_text() %}string{% endmacro %}
{% macro spark__type_text() %}string{% endmacro %}
{% macro clickhouse__type_text() %}Nullable(String){% endmacro %}

{% macro type_bigint() %}{{ return(adapter.dispatch('type_bigint', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_bigint() %}bigint{% endmacro %}
{% macro bigquery__type_bigint() %}int64{% endmacro %}
{% macro clickhouse__type_bigint() %}Nullable(Int64){% endmacro %}

{% macro type_bool() %}{{ return(adapter.dispatch('type_bool', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_bool() %}boolean{% endmacro %}
{% macro bigquery__type_bool() %}bool{% endmacro %}
{% macro clickhouse__type_bool() %}Nullable(Bool){% endmacro %}

{# Amounts in minor units with up to 12 decimals, and the products of two of them. #}
{% macro type_amount() %}{{ return(adapter.dispatch('type_amount', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_amount() %}decimal(38, 12){% endmacro %}
{% macro bigquery__type_amount() %}bignumeric{% endmacro %}
{% macro clickhouse__type_amount() %}Nullable(Decimal(38, 12)){% endmacro %}

{% macro type_timestamp() %}{{ return(adapter.dispatch('type_timestamp', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_timestamp() %}timestamp{% endmacro %}
{% macro bigquery__type_timestamp() %}datetime{% endmacro %}
{% macro snowflake__type_timestamp() %}timestamp_ntz{% endmacro %}
{% macro spark__type_timestamp() %}timestamp_ntz{% endmacro %}
{% macro trino__type_timestamp() %}timestamp(6){% endmacro %}
{% macro athena__type_timestamp() %}timestamp(6){% endmacro %}
{% macro clickhouse__type_timestamp() %}Nullable(DateTime64(6, 'UTC')){% endmacro %}

{# A stored moment as UTC time without a zone: no session time zone changes what a model says. #}
{% macro utc(moment) %}{{ return(adapter.dispatch('utc', 'stripe_feed')(moment)) }}{% endmacro %}
{% macro default__utc(moment) %}({{ moment }} at time zone 'UTC'){% endmacro %}
{% macro snowflake__utc(moment) %}convert_timezone('UTC', {{ moment }})::timestamp_ntz{% endmacro %}
{% macro bigquery__utc(moment) %}datetime({{ moment }}, 'UTC'){% endmacro %}
{#- Spark's own conversions go through the session's wall clock, which an hour each year shows twice. #}
{% macro spark__utc(moment) %}(timestamp_ntz '1970-01-01 00:00:00' + make_dt_interval(0, 0, 0, cast(unix_micros({{ moment }}) as decimal(18, 0)) * cast('0.000001' as decimal(7, 6)))){% endmacro %}
{% macro clickhouse__utc(moment) %}toTimeZone({{ moment }}, 'UTC'){% endmacro %}
{% macro trino__utc(moment) %}cast({{ moment }} at time zone 'UTC' as timestamp(6)){% endmacro %}
{% macro athena__utc(moment) %}cast({{ moment }} at time zone 'UTC' as timestamp(6)){% endmacro %}

{# A JSON number of Unix seconds, given as text, as UTC time; null if it is none. #}
{% macro epoch(seconds) %}{{ return(adapter.dispatch('epoch', 'stripe_feed')(seconds)) }}{% endmacro %}
{% macro default__epoch(seconds) %}(to_timestamp({{ integer_of(seconds) }}) at time zone 'UTC'){% endmacro %}
{% macro duckdb__epoch(seconds) %}try(make_timestamp(cast({{ seconds }} as bigint) * 1000000)){% endmacro %}
{% macro postgres__epoch(seconds) %}(to_timestamp(case when {{ seconds }} ~ '^([0-9]{1,11}|-[0-9]{1,10})$' then cast({{ seconds }} as bigint) end) at time zone 'UTC'){% endmacro %}
{% macro redshift__epoch(seconds) %}(timestamp 'epoch' + {{ integer_of(seconds) }} * interval '1 second'){% endmacro %}
{% macro snowflake__epoch(seconds) %}to_timestamp_ntz({{ integer_of(seconds) }}){% endmacro %}
{% macro bigquery__epoch(seconds) %}datetime(timestamp_seconds({{ integer_of(seconds) }}), 'UTC'){% endmacro %}
{% macro spark__epoch(seconds) %}(timestamp_ntz '1970-01-01 00:00:00' + make_dt_interval(0, 0, 0, try_cast({{ seconds }} as decimal(12, 0)))){% endmacro %}
{% macro clickhouse__epoch(seconds) %}toDateTime64({{ integer_of(seconds) }}, 6, 'UTC'){% endmacro %}
{% macro trino__epoch(seconds) %}cast(from_unixtime({{ integer_of(seconds) }}) at time zone 'UTC' as timestamp(6)){% endmacro %}
{% macro athena__epoch(seconds) %}cast(from_unixtime({{ integer_of(seconds) }}) at time zone 'UTC' as timestamp(6)){% endmacro %}

{# The moment that the models speak of: now, or the variable `as_of`. The only clock in the project. #}
{% macro as_of() %}{% if var('as_of') %}cast('{{ var('as_of') }}' as {{ type_timestamp() }}){% else %}{{ adapter.dispatch('now', 'stripe_feed')() }}{% endif %}{% endmacro %}
{% macro default__now() %}(current_timestamp at time zone 'UTC'){% endmacro %}
{% macro snowflake__now() %}convert_timezone('UTC', current_timestamp())::timestamp_ntz{% endmacro %}
{% macro bigquery__now() %}current_datetime('UTC'){% endmacro %}
{% macro spark__now() %}{{ spark__utc('current_timestamp()') }}{% endmacro %}
{% macro redshift__now() %}getdate(){% endmacro %}
{% macro clickhouse__now() %}now64(6, 'UTC'){% endmacro %}
{% macro trino__now() %}cast(current_timestamp at time zone 'UTC' as timestamp(6)){% endmacro %}
{% macro athena__now() %}cast(current_timestamp at time zone 'UTC' as timestamp(6)){% endmacro %}

{# Between UTC and the time of `reporting_timezone`, both without a zone. #}
{% macro local_time(moment) %}{% if var('reporting_timezone') == 'UTC' %}{{ moment }}{% else %}{{ adapter.dispatch('from_zone_to_zone', 'stripe_feed')(moment, 'UTC', var('reporting_timezone')) }}{% endif %}{% endmacro %}
{% macro utc_time(moment) %}{% if var('reporting_timezone') == 'UTC' %}{{ moment }}{% else %}{{ adapter.dispatch('from_zone_to_zone', 'stripe_feed')(moment, var('reporting_timezone'), 'UTC') }}{% endif %}{% endmacro %}
{% macro default__from_zone_to_zone(moment, source, zone) %}({{ moment }} at time zone '{{ source }}' at time zone '{{ zone }}'){% endmacro %}
{% macro redshift__from_zone_to_zone(moment, source, zone) %}convert_timezone('{{ source }}', '{{ zone }}', {{ moment }}){% endmacro %}
{% macro snowflake__from_zone_to_zone(moment, source, zone) %}convert_timezone('{{ source }}', '{{ zone }}', {{ moment }}){% endmacro %}
{% macro bigquery__from_zone_to_zone(moment, source, zone) %}datetime(timestamp({{ moment }}, '{{ source }}'), '{{ zone }}'){% endmacro %}
{% macro spark__from_zone_to_zone(moment, source, zone) %}convert_timezone('{{ source }}', '{{ zone }}', {{ moment }}){% endmacro %}
{% macro clickhouse__from_zone_to_zone(moment, source, zone) %}toDateTime64(toString(toTimeZone(toDateTime64(toString({{ moment }}), 6, '{{ source }}'), '{{ zone }}')), 6, 'UTC'){% endmacro %}
{% macro trino__from_zone_to_zone(moment, source, zone) %}cast(with_timezone({{ moment }}, '{{ source }}') at time zone '{{ zone }}' as timestamp(6)){% endmacro %}
{% macro athena__from_zone_to_zone(moment, source, zone) %}cast(with_timezone({{ moment }}, '{{ source }}') at time zone '{{ zone }}' as timestamp(6)){% endmacro %}

{# The first instant of the month, and of the month n months later. #}
{% macro month_start(moment) %}{{ return(adapter.dispatch('month_start', 'stripe_feed')(moment)) }}{% endmacro %}
{% macro default__month_start(moment) %}cast(date_trunc('month', {{ moment }}) as timestamp){% endmacro %}
{% macro snowflake__month_start(moment) %}date_trunc('month', {{ moment }})::timestamp_ntz{% endmacro %}
{% macro bigquery__month_start(moment) %}datetime_trunc({{ moment }}, month){% endmacro %}
{% macro spark__month_start(moment) %}cast(date_trunc('month', {{ moment }}) as timestamp_ntz){% endmacro %}
{% macro clickhouse__month_start(moment) %}toDateTime64(toStartOfMonth({{ moment }}), 6, 'UTC'){% endmacro %}
{% macro trino__month_start(moment) %}date_trunc('month', {{ moment }}){% endmacro %}
{% macro athena__month_start(moment) %}date_trunc('month', {{ moment }}){% endmacro %}

{% macro add_months(moment, months) %}{{ return(adapter.dispatch('add_months', 'stripe_feed')(moment, months)) }}{% endmacro %}
{% macro default__add_months(moment, months) %}({{ moment }} + ({{ months }}) * interval '1 month'){% endmacro %}
{% macro redshift__add_months(moment, months) %}dateadd(month, cast({{ months }} as int), {{ moment }}){% endmacro %}
{% macro snowflake__add_months(moment, months) %}dateadd(month, {{ months }}, {{ moment }}){% endmacro %}
{% macro bigquery__add_months(moment, months) %}datetime_add({{ moment }}, interval {{ months }} month){% endmacro %}
{% macro spark__add_months(moment, months) %}({{ moment }} + make_ym_interval(0, cast({{ months }} as int))){% endmacro %}
{% macro clickhouse__add_months(moment, months) %}addMonths({{ moment }}, {{ months }}){% endmacro %}
{% macro trino__add_months(moment, months) %}date_add('month', {{ months }}, {{ moment }}){% endmacro %}
{% macro athena__add_months(moment, months) %}date_add('month', {{ months }}, {{ moment }}){% endmacro %}

{% macro add_days(moment, days) %}{{ return(adapter.dispatch('add_days', 'stripe_feed')(moment, days)) }}{% endmacro %}
{% macro default__add_days(moment, days) %}({{ moment }} + ({{ days }}) * interval '1 day'){% endmacro %}
{% macro redshift__add_days(moment, days) %}dateadd(day, cast({{ days }} as int), {{ moment }}){% endmacro %}
{% macro snowflake__add_days(moment, days) %}dateadd(day, {{ days }}, {{ moment }}){% endmacro %}
{% macro bigquery__add_days(moment, days) %}datetime_add({{ moment }}, interval {{ days }} day){% endmacro %}
{% macro spark__add_days(moment, days) %}({{ moment }} + make_dt_interval(cast({{ days }} as int))){% endmacro %}
{% macro clickhouse__add_days(moment, days) %}addDays({{ moment }}, {{ days }}){% endmacro %}
{% macro trino__add_days(moment, days) %}date_add('day', {{ days }}, {{ moment }}){% endmacro %}
{% macro athena__add_days(moment, days) %}date_add('day', {{ days }}, {{ moment }}){% endmacro %}

{# How many midnights lie between two moments. #}
{% macro days_between(first, second) %}{{ return(adapter.dispatch('days_between', 'stripe_feed')(first, second)) }}{% endmacro %}
{% macro default__days_between(first, second) %}date_diff('day', {{ first }}, {{ second }}){% endmacro %}
{% macro postgres__days_between(first, second) %}(cast({{ second }} as date) - cast({{ first }} as date)){% endmacro %}
{% macro redshift__days_between(first, second) %}datediff(day, {{ first }}, {{ second }}){% endmacro %}
{% macro snowflake__days_between(first, second) %}datediff(day, {{ first }}, {{ second }}){% endmacro %}
{% macro bigquery__days_between(first, second) %}date_diff(date({{ second }}), date({{ first }}), day){% endmacro %}
{% macro spark__days_between(first, second) %}datediff({{ second }}, {{ first }}){% endmacro %}
{% macro clickhouse__days_between(first, second) %}dateDiff('day', {{ first }}, {{ second }}, 'UTC'){% endmacro %}
{% macro trino__days_between(first, second) %}date_diff('day', cast({{ first }} as date), cast({{ second }} as date)){% endmacro %}
{% macro athena__days_between(first, second) %}date_diff('day', cast({{ first }} as date), cast({{ second }} as date)){% endmacro %}

{# Integers from 0 to 511, as column n. #}
{% macro numbers() %}(select digits_a.n + 8 * digits_b.n + 64 * digits_c.n as n from {{ digits() }} as digits_a cross join {{ digits() }} as digits_b cross join {{ digits() }} as digits_c){% endmacro %}
{% macro digits() %}(select 0 as n union all select 1 union all select 2 union all select 3 union all select 4 union all select 5 union all select 6 union all select 7){% endmacro %}

{% macro type_json() %}{{ return(adapter.dispatch('type_json', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_json() %}varchar{% endmacro %}
{% macro duckdb__type_json() %}json{% endmacro %}
{% macro postgres__type_json() %}json{% endmacro %}
{% macro redshift__type_json() %}super{% endmacro %}
{% macro snowflake__type_json() %}variant{% endmacro %}
{% macro bigquery__type_json() %}string{% endmacro %}
{% macro spark__type_json() %}string{% endmacro %}
{% macro clickhouse__type_json() %}Nullable(String){% endmacro %}

{# A column whose name an engine reserves. #}
{% macro quoted(name) %}{{ return(adapter.dispatch('quoted', 'stripe_feed')(name)) }}{% endmacro %}
{% macro default__quoted(name) %}"{{ name }}"{% endmacro %}
{% macro snowflake__quoted(name) %}"{{ name | upper }}"{% endmacro %}
{% macro bigquery__quoted(name) %}`{{ name }}`{% endmacro %}
{% macro spark__quoted(name) %}`{{ name }}`{% endmacro %}

{# The value that lag and lead look at: where there is no such row they give null, and ClickHouse a zero unless the value can be null. #}
{% macro nullable(value) %}{{ return(adapter.dispatch('nullable', 'stripe_feed')(value)) }}{% endmacro %}
{% macro default__nullable(value) %}{{ value }}{% endmacro %}
{% macro clickhouse__nullable(value) %}toNullable({{ value }}){% endmacro %}
