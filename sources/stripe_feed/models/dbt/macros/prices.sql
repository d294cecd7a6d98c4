{# Where a price object, or the legacy plan object of the same price, has each field; for json_fields. #}
{% macro price_paths(prefix='') %}{{ return({
    'price_id': prefix ~ 'id',
    'product_id': prefix ~ 'product',
    'price_currency': prefix ~ 'currency',
    'unit_amount': prefix ~ 'unit_amount_decimal',
    'billing_scheme': prefix ~ 'billing_scheme',
    'tiers_mode': prefix ~ 'tiers_mode',
    'billing_interval': prefix ~ 'recurring.interval',
    'billing_interval_count': prefix ~ 'recurring.interval_count',
    'usage_type': prefix ~ 'recurring.usage_type',
    'divide_quantity_by': prefix ~ 'transform_quantity.divide_by',
    'round_quantity': prefix ~ 'transform_quantity.round',
    'tax_behavior': prefix ~ 'tax_behavior'
}) }}{% endmacro %}

{# The columns that json_fields(price_paths()) gave, typed. #}
{% macro typed_price(relation) %}{{ relation }}.price_id as price_id,
    {{ relation }}.product_id as product_id,
    {{ relation }}.price_currency as currency,
    {{ amount_of(relation ~ '.unit_amount') }} as unit_amount,
    {{ relation }}.billing_scheme as billing_scheme,
    {{ relation }}.tiers_mode as tiers_mode,
    {{ relation }}.billing_interval as billing_interval,
    coalesce({{ integer_of(relation ~ '.billing_interval_count') }}, 1) as billing_interval_count,
    {{ relation }}.usage_type as usage_type,
    {{ integer_of(relation ~ '.divide_quantity_by') }} as divide_quantity_by,
    {{ relation }}.round_quantity as round_quantity,
    {{ relation }}.tax_behavior as tax_behavior{% endmacro %}

{# The columns of a price, passed on. #}
{% macro price_columns(relation) %}{% for name in price_paths() %}{% set column = 'currency' if name == 'price_currency' else name %}{{ relation }}.{{ column }} as {{ column }}{{ ', ' if not loop.last }}{% endfor %}{% endmacro %}

{# An amount per billing period as an amount per month, rounded half up once. On DuckDB in 64 bits where they suffice, which are five times as fast. #}
{% macro monthly(amount) %}{{ return(adapter.dispatch('monthly', 'stripe_feed')(amount)) }}{% endmacro %}
{% macro default__monthly(amount) %}cast({{ per_month(amount, type_wide()) }} as {{ type_bigint() }}){% endmacro %}
{% macro duckdb__monthly(amount) %}case when {{ amount }} < 1000000000000 and billing_interval_count < 10000 then {{ per_month(amount, type_bigint()) }} else {{ default__monthly(amount) }} end{% endmacro %}
{% macro per_month(amount, type) %}{{ rounded("cast(" ~ amount ~ " as " ~ type ~ ") * case billing_interval when 'day' then 365 when 'week' then 52 else 1 end", "cast(case billing_interval when 'month' then 1 else 12 end * billing_interval_count as " ~ type ~ ")") }}{% endmacro %}
