{# Later than every moment: the end of a span that lasts. Models show null instead. #}
{% macro forever() %}{{ return(adapter.dispatch('forever', 'stripe_feed')()) }}{% endmacro %}
{% macro default__forever() %}cast('9999-12-31 00:00:00' as {{ type_timestamp() }}){% endmacro %}
{% macro clickhouse__forever() %}toDateTime64('2299-12-31 00:00:00', 6, 'UTC'){% endmacro %}

{# Whether a row with valid_from and valid_to holds at the last instant before a moment. #}
{% macro in_force(relation, moment) %}({{ relation }}.valid_from < {{ moment }} and ({{ relation }}.valid_to is null or {{ relation }}.valid_to >= {{ moment }})){% endmacro %}

{# The weakest of several bases, as an aggregate. #}
{% macro weakest_basis(column) %}case max(case {{ column }} when 'assumed' then 3 when 'invoice' then 2 else 1 end) when 3 then 'assumed' when 2 then 'invoice' else 'observed' end{% endmacro %}
