{# Values inside JSON columns, by dotted path; always text, null where absent or JSON null. #}

{% macro json_text(column, path) %}{{ return(adapter.dispatch('json_text', 'stripe_feed')(column, path)) }}{% endmacro %}
{% macro default__json_text(column, path) %}json_extract_scalar({{ column }}, '{{ json_path(path) }}'){% endmacro %}
{% macro duckdb__json_text(column, path) %}({{ column }} ->> '{{ json_path(path) }}'){% endmacro %}
{% macro postgres__json_text(column, path) %}({{ column }} #>> '{ {{- path | replace('.', ',') -}} }'){% endmacro %}
{% macro redshift__json_text(column, path) %}{% if path %}json_extract_path_text(json_serialize({{ column }}), '{{ path | replace('.', "', '") }}', true){% else %}cast({{ column }} as varchar(65535)){% endif %}{% endmacro %}
{#- Elements without a path are ids: Snowflake gives them without quotes, what imitates it with them. #}
{% macro snowflake__json_text(column, path) %}{% if path %}{{ column }}:{{ path | replace('.', ':') }}::varchar{% else %}trim({{ column }}::varchar, '"'){% endif %}{% endmacro %}
{% macro bigquery__json_text(column, path) %}json_value({{ column }}, '{{ json_path(path) }}'){% endmacro %}
{#- An element that is a text comes without its quotes from json_rows on Spark. #}
{% macro spark__json_text(column, path) %}{% if path %}get_json_object({{ column }}, '{{ json_path(path) }}'){% else %}{{ column }}{% endif %}{% endmacro %}
{% macro clickhouse__json_text(column, path) %}JSONExtract({{ column }}{% if path %}, '{{ path | replace('.', "', '") }}'{% endif %}, 'Nullable(String)'){% endmacro %}

{# The path in JSONPath's spelling; '' is the value itself. #}
{% macro json_path(path) %}${% if path %}.{{ path }}{% endif %}{% endmacro %}

{# Several values, as `expression as alias` separated by commas. fields: {'alias': 'dotted.path'}; lists: the same, each as by `json_list`. One parse on DuckDB. #}
{% macro json_fields(column, fields, lists={}) %}{{ return(adapter.dispatch('json_fields', 'stripe_feed')(column, fields, lists)) }}{% endmacro %}
{% macro default__json_fields(column, fields, lists) %}{% for alias, path in fields.items() %}{{ json_text(column, path) }} as {{ alias }}{{ ', ' if not loop.last or lists }}{% endfor %}{% for alias, path in lists.items() %}{{ json_list(column, path) }} as {{ alias }}{{ ', ' if not loop.last }}{% endfor %}{% endmacro %}
{% macro duckdb__json_fields(column, fields, lists) %}{% set paths = (fields.values() | list + lists.values() | list) | join("', '$.") %}{% for alias in fields %}json_extract_string({{ column }}, ['$.{{ paths }}'])[{{ loop.index }}] as {{ alias }}{{ ', ' if not loop.last or lists }}{% endfor %}{% for alias in lists %}coalesce(json_extract_string({{ column }}, ['$.{{ paths }}'])[{{ fields | length + loop.index }}], '[]') as {{ alias }}{{ ', ' if not loop.last }}{% endfor %}{% endmacro %}

{# Whether the path exists, JSON null included. #}
{% macro json_has(column, path) %}{{ return(adapter.dispatch('json_has', 'stripe_feed')(column, path)) }}{% endmacro %}
{% macro default__json_has(column, path) %}(json_extract({{ column }}, '{{ json_path(path) }}') is not null){% endmacro %}
{% macro duckdb__json_has(column, path) %}coalesce(json_exists({{ column }}, '{{ json_path(path) }}'), false){% endmacro %}
{% macro postgres__json_has(column, path) %}(({{ column }} #> '{ {{- path | replace('.', ',') -}} }') is not null){% endmacro %}
{% macro redshift__json_has(column, path) %}(json_extract_path_text(json_serialize({{ column }}), '{{ path | replace('.', "', '") }}', true) is not null){% endmacro %}
{% macro snowflake__json_has(column, path) %}({{ column }}{% if path %}:{{ path | replace('.', ':') }}{% endif %} is not null){% endmacro %}
{% macro bigquery__json_has(column, path) %}(json_query({{ column }}, '{{ json_path(path) }}') is not null){% endmacro %}
{% macro spark__json_has(column, path) %}coalesce(array_contains(json_object_keys({% if '.' in path %}get_json_object({{ column }}, '$.{{ path.rpartition('.')[0] }}'){% else %}{{ column }}{% endif %}), '{{ path.split('.')[-1] }}'), false){% endmacro %}
{% macro clickhouse__json_has(column, path) %}(JSONHas(coalesce({{ column }}, ''), '{{ path | replace('.', "', '") }}') = 1){% endmacro %}

{# Whether several paths exist, as `expression as alias` separated by commas. fields: {'alias': 'dotted.path'}. One parse on DuckDB. #}
{% macro json_has_fields(column, fields) %}{{ return(adapter.dispatch('json_has_fields', 'stripe_feed')(column, fields)) }}{% endmacro %}
{% macro default__json_has_fields(column, fields) %}{% for alias, path in fields.items() %}{{ json_has(column, path) }} as {{ alias }}{{ ', ' if not loop.last }}{% endfor %}{% endmacro %}
{% macro duckdb__json_has_fields(column, fields) %}{% set paths = fields.values() | list | join("', '$.") %}{% for alias, path in fields.items() %}coalesce(json_exists({{ column }}, ['$.{{ paths }}'])[{{ loop.index }}], false) as {{ alias }}{{ ', ' if not loop.last }}{% endfor %}{% endmacro %}

{# (select keep..., element from relation): a subquery with one row per element of the array at `path`. No row for an empty or absent array. #}
{% macro json_rows(relation, column, path, keep) %}{{ return(adapter.dispatch('json_rows', 'stripe_feed')(relation, column, path, keep)) }}{% endmacro %}
{% macro duckdb__json_rows(relation, column, path, keep) %}(select {{ keep | join(', ') }}, unnest(json_extract({{ column }}, '{{ json_path(path) }}[*]')) as element from {{ relation }} as holders){% endmacro %}
{% macro postgres__json_rows(relation, column, path, keep) %}(select {{ keep | join(', ') }}, cast(elements.value as json) as element from {{ relation }} as holders cross join lateral jsonb_array_elements(case when json_typeof(holders.{{ column }} #> '{ {{- path | replace('.', ',') -}} }') = 'array' then cast(holders.{{ column }} #> '{ {{- path | replace('.', ',') -}} }' as jsonb) else cast('[]' as jsonb) end) as elements(value)){% endmacro %}
{% macro redshift__json_rows(relation, column, path, keep) %}(select {% for name in keep %}holders.{{ name }} as {{ name }}, {% endfor %}element from {{ relation }} as holders, holders.{{ column }}{% if path %}.{{ path }}{% endif %} as element){% endmacro %}
{% macro snowflake__json_rows(relation, column, path, keep) %}(select {% for name in keep %}holders.{{ name }} as {{ name }}, {% endfor %}flattened.value as element from {{ relation }} as holders, lateral flatten(input => holders.{{ column }}{% if path %}:{{ path | replace('.', ':') }}{% endif %}) as flattened){% endmacro %}
{% macro bigquery__json_rows(relation, column, path, keep) %}(select {% for name in keep %}holders.{{ name }} as {{ name }}, {% endfor %}element from {{ relation }} as holders, unnest(json_query_array(holders.{{ column }}, '{{ json_path(path) }}')) as element){% endmacro %}
{% macro spark__json_rows(relation, column, path, keep) %}(select {{ keep | join(', ') }}, explode(from_json(get_json_object({{ column }}, '{{ json_path(path) }}'), 'array<string>')) as element from {{ relation }} as holders){% endmacro %}
{% macro clickhouse__json_rows(relation, column, path, keep) %}(select {% for name in keep %}holders.{{ name }} as {{ name }}, {% endfor %}arrayJoin(JSONExtractArrayRaw(coalesce({{ column }}, ''){% if path %}, '{{ path | replace('.', "', '") }}'{% endif %})) as element from {{ relation }} as holders){% endmacro %}
{% macro trino__json_rows(relation, column, path, keep) %}(select {% for name in keep %}holders.{{ name }} as {{ name }}, {% endfor %}json_format(elements.value) as element from {{ relation }} as holders cross join unnest(cast(json_extract(holders.{{ column }}, '{{ json_path(path) }}') as array(json))) as elements(value)){% endmacro %}
{% macro athena__json_rows(relation, column, path, keep) %}{{ trino__json_rows(relation, column, path, keep) }}{% endmacro %}

{# A JSON list inside a JSON column as compact text; '[]' where there is none. #}
{% macro json_list(column, path='') %}coalesce({{ adapter.dispatch('json_compact', 'stripe_feed')(column, path) }}, '[]'){% endmacro %}
{% macro default__json_compact(column, path) %}{{ json_text(column, path) }}{% endmacro %}
{% macro postgres__json_compact(column, path) %}regexp_replace({{ json_text(column, path) }}, '[[:space:]]', '', 'g'){% endmacro %}
{% macro redshift__json_compact(column, path) %}regexp_replace({{ json_text(column, path) }}, '[[:space:]]', ''){% endmacro %}
{% macro snowflake__json_compact(column, path) %}to_json({{ column }}{% if path %}:{{ path | replace('.', ':') }}{% endif %}){% endmacro %}
{% macro bigquery__json_compact(column, path) %}regexp_replace(json_query({{ column }}, '{{ json_path(path) }}'), '[[:space:]]', ''){% endmacro %}
{% macro trino__json_compact(column, path) %}json_format(json_extract({{ column }}, '{{ json_path(path) }}')){% endmacro %}
{% macro athena__json_compact(column, path) %}{{ trino__json_compact(column, path) }}{% endmacro %}

{# The ids of the discounts of a raw row as a JSON list; older API versions had one discount, as an object. #}
{% macro discount_ids(column) %}case when {{ json_text('extra', 'discount.id') }} is not null then concat('["', {{ json_text('extra', 'discount.id') }}, '"]') else {{ json_list(column) }} end{% endmacro %}

{# A JSON list that a model keeps as text, as a JSON column again. #}
{% macro as_json(text) %}{{ return(adapter.dispatch('as_json', 'stripe_feed')(text)) }}{% endmacro %}
{% macro default__as_json(text) %}{{ text }}{% endmacro %}
{% macro duckdb__as_json(text) %}cast({{ text }} as json){% endmacro %}
{% macro postgres__as_json(text) %}cast({{ text }} as json){% endmacro %}
{% macro redshift__as_json(text) %}json_parse({{ text }}){% endmacro %}
{% macro snowflake__as_json(text) %}parse_json({{ text }}){% endmacro %}

{# Where a text stands in another one, from 1; 0 if it does not. #}
{% macro position_in(part, text) %}{{ return(adapter.dispatch('position_in', 'stripe_feed')(part, text)) }}{% endmacro %}
{% macro default__position_in(part, text) %}strpos({{ text }}, {{ part }}){% endmacro %}
{% macro snowflake__position_in(part, text) %}position({{ part }}, {{ text }}){% endmacro %}
{% macro spark__position_in(part, text) %}locate({{ part }}, {{ text }}){% endmacro %}
{% macro clickhouse__position_in(part, text) %}position({{ text }}, {{ part }}){% endmacro %}
