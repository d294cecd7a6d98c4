{# Exact arithmetic. No float anywhere: DuckDB's `/` on integers and decimals is one. #}

{# The whole part of numerator / denominator, both at least 0. #}
{% macro whole_div(numerator, denominator) %}{{ return(adapter.dispatch('whole_div', 'stripe_feed')(numerator, denominator)) }}{% endmacro %}
{% macro default__whole_div(numerator, denominator) %}((({{ numerator }}) - mod({{ numerator }}, {{ denominator }})) / ({{ denominator }})){% endmacro %}
{% macro duckdb__whole_div(numerator, denominator) %}(({{ numerator }}) // ({{ denominator }})){% endmacro %}
{% macro postgres__whole_div(numerator, denominator) %}div({{ numerator }}, {{ denominator }}){% endmacro %}
{% macro redshift__whole_div(numerator, denominator) %}((({{ numerator }}) - mod({{ numerator }}, {{ denominator }})) / ({{ denominator }})){% endmacro %}
{#- Exact where `/` is a float too, as in what imitates Snowflake: what the first quotient leaves is divided again. #}
{% macro snowflake__whole_div(numerator, denominator) %}
{%- set multiple = '((' ~ numerator ~ ') - mod(' ~ numerator ~ ', ' ~ denominator ~ '))' %}
{%- set quotient = 'cast(round(' ~ multiple ~ ' / (' ~ denominator ~ ')) as ' ~ type_wide() ~ ')' -%}
({{ quotient }} + cast(round(({{ multiple }} - {{ quotient }} * ({{ denominator }})) / ({{ denominator }})) as {{ type_wide() }}))
{%- endmacro %}
{% macro bigquery__whole_div(numerator, denominator) %}div({{ numerator }}, {{ denominator }}){% endmacro %}
{% macro spark__whole_div(numerator, denominator) %}(({{ numerator }}) div ({{ denominator }})){% endmacro %}
{% macro clickhouse__whole_div(numerator, denominator) %}intDiv({{ numerator }}, {{ denominator }}){% endmacro %}

{# numerator / denominator, both at least 0, rounded half up to an integer. #}
{% macro rounded(numerator, denominator) %}{{ whole_div('2 * (' ~ numerator ~ ') + (' ~ denominator ~ ')', '2 * (' ~ denominator ~ ')') }}{% endmacro %}

{# An amount that is given as text; null if it is no number that fits. DuckDB reads wide decimals slowly: those that fit into a narrow one go through it. #}
{% macro amount_of(text) %}{{ return(adapter.dispatch('amount_of', 'stripe_feed')(text)) }}{% endmacro %}
{% macro default__amount_of(text) %}try_cast({{ text }} as {{ type_amount() }}){% endmacro %}
{% macro duckdb__amount_of(text) %}case when regexp_full_match({{ text }}, '-?[0-9]{1,12}([.][0-9]{1,6})?') then cast(cast({{ text }} as decimal(18, 6)) as {{ type_amount() }}) when regexp_full_match({{ text }}, '{{ number_pattern() }}') then cast({{ text }} as {{ type_amount() }}) end{% endmacro %}
{% macro postgres__amount_of(text) %}case when {{ text }} ~ '^({{ number_pattern() }})$' then cast({{ text }} as {{ type_amount() }}) end{% endmacro %}
{% macro bigquery__amount_of(text) %}safe_cast({{ text }} as {{ type_amount() }}){% endmacro %}
{% macro clickhouse__amount_of(text) %}toDecimal128OrNull({{ text }}, 12){% endmacro %}
{% macro number_pattern() %}-?([0-9]{1,26}([.][0-9]+)?|[0-9]{1,16}([.][0-9]+)?[eE][+-]?[0-9]){% endmacro %}

{# The text of an amount that is no number; null for every other. #}
{% macro unreadable_amount(text) %}case when {{ amount_of(text) }} is null then {{ text }} end{% endmacro %}

{# An integer that is given as text; null if it is none. #}
{% macro integer_of(text) %}{{ return(adapter.dispatch('integer_of', 'stripe_feed')(text)) }}{% endmacro %}
{% macro default__integer_of(text) %}try_cast({{ text }} as {{ type_bigint() }}){% endmacro %}
{% macro duckdb__integer_of(text) %}case when regexp_full_match({{ text }}, '-?[0-9]{1,18}') then cast({{ text }} as {{ type_bigint() }}) end{% endmacro %}
{% macro postgres__integer_of(text) %}case when {{ text }} ~ '^-?[0-9]{1,18}$' then cast({{ text }} as {{ type_bigint() }}) end{% endmacro %}
{% macro bigquery__integer_of(text) %}safe_cast({{ text }} as {{ type_bigint() }}){% endmacro %}
{% macro clickhouse__integer_of(text) %}toInt64OrNull({{ text }}){% endmacro %}

{# An amount rounded half away from zero to an integer; on DuckDB by the same way round. #}
{% macro whole(amount) %}{{ return(adapter.dispatch('whole', 'stripe_feed')(amount)) }}{% endmacro %}
{% macro default__whole(amount) %}cast(round({{ amount }}) as {{ type_bigint() }}){% endmacro %}
{% macro duckdb__whole(amount) %}case when {{ amount }} between -900000 and 900000 then cast(cast({{ amount }} as decimal(18, 12)) as bigint) else cast(round({{ amount }}) as bigint) end{% endmacro %}

{# A ratio of two integers with six decimals, rounded half away from zero; null if the denominator is 0. #}
{% macro ratio(numerator, denominator) %}cast({{ adapter.dispatch('millionths', 'stripe_feed')('case when (' ~ denominator ~ ') > 0 then (case when (' ~ numerator ~ ') < 0 then -1 else 1 end) * ' ~ rounded('cast(abs(' ~ numerator ~ ') as ' ~ type_wide() ~ ') * 1000000', denominator) ~ ' end') }} as {{ adapter.dispatch('type_ratio', 'stripe_feed')() }}){% endmacro %}
{% macro default__millionths(whole) %}cast({{ whole }} as {{ type_wide() }}) * cast('0.000001' as decimal(7, 6)){% endmacro %}
{#- ClickHouse turns no wide integer into a decimal, and a product with one wraps around in silence. #}
{% macro clickhouse__millionths(whole) %}toDecimal128(toString({{ whole }}), 0) * cast('0.000001' as decimal(7, 6)){% endmacro %}
{% macro default__type_ratio() %}decimal(28, 6){% endmacro %}
{% macro bigquery__type_ratio() %}numeric{% endmacro %}
{% macro clickhouse__type_ratio() %}Nullable(Decimal(28, 6)){% endmacro %}

{# A percentage with up to four decimals of an amount, rounded half up. #}
{% macro percent_of(amount, percent) %}cast({{ rounded('cast(' ~ amount ~ ' as ' ~ type_wide() ~ ') * cast(' ~ percent ~ ' * 10000 as ' ~ type_bigint() ~ ')', 'cast(1000000 as ' ~ type_wide() ~ ')') }} as {{ type_bigint() }}){% endmacro %}

{% macro type_percent() %}{{ return(adapter.dispatch('type_percent', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_percent() %}decimal(9, 4){% endmacro %}
{% macro clickhouse__type_percent() %}Nullable(Decimal(18, 4)){% endmacro %}

{# amount x part / whole, rounded half up; whole is above 0. #}
{% macro share(amount, part, whole) %}cast({{ rounded('cast(' ~ amount ~ ' as ' ~ type_wide() ~ ') * (' ~ part ~ ')', 'cast(' ~ whole ~ ' as ' ~ type_wide() ~ ')') }} as {{ type_bigint() }}){% endmacro %}

{# A sum of integers, as an integer: engines widen it. #}
{% macro total(amount) %}cast(sum({{ amount }}) as {{ type_bigint() }}){% endmacro %}

{# A running sum of integers, up to and with the row. #}
{% macro running(amount, partition, order) %}cast(sum({{ amount }}) over (partition by {{ partition }} order by {{ order }} rows between unbounded preceding and current row) as {{ type_bigint() }}){% endmacro %}

{# How many rows, as an integer. #}
{% macro row_count() %}cast(count(*) as {{ type_bigint() }}){% endmacro %}

{# Integers beyond 64 bits: products of two amounts. #}
{% macro type_wide() %}{{ return(adapter.dispatch('type_wide', 'stripe_feed')()) }}{% endmacro %}
{% macro default__type_wide() %}decimal(38, 0){% endmacro %}
{% macro duckdb__type_wide() %}hugeint{% endmacro %}
{#- What imitates Snowflake makes 64 bits of its widest integer. #}
{% macro snowflake__type_wide() %}decimal(37, 0){% endmacro %}
{% macro bigquery__type_wide() %}bignumeric{% endmacro %}
{% macro clickhouse__type_wide() %}Nullable(Int256){% endmacro %}

{# How many decimals a currency's amounts have at Stripe; https://docs.stripe.com/currencies #}
{% macro exponent(currency) %}case when {{ currency }} in ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv', 'xaf', 'xof', 'xpf') then 0 when {{ currency }} in ('bhd', 'jod', 'kwd', 'omr', 'tnd') then 3 else 2 end{% endmacro %}

{# An amount in major units: 1999 usd is 19.990. #}
{% macro major(amount, currency) %}cast(cast({{ amount }} as {{ adapter.dispatch('type_minor', 'stripe_feed')() }}) * cast(case {{ exponent(currency) }} when 0 then 1000 when 3 then 1 else 10 end as decimal(4, 0)) * cast('0.001' as decimal(4, 3)) as {{ adapter.dispatch('type_major', 'stripe_feed')() }}){% endmacro %}
{% macro default__type_minor() %}decimal(32, 0){% endmacro %}
{% macro bigquery__type_minor() %}bignumeric{% endmacro %}
{% macro clickhouse__type_minor() %}Nullable(Decimal(32, 0)){% endmacro %}
{% macro default__type_major() %}decimal(38, 3){% endmacro %}
{% macro bigquery__type_major() %}numeric{% endmacro %}
{% macro clickhouse__type_major() %}Nullable(Decimal(38, 3)){% endmacro %}
