{# Where Stripe's amount per unit is no number, it counts as unknown: MRR comes from an invoice then, or is 0. #}
{%- set ids = {'subscription_items': 'subscription_item_id', 'invoice_line_items': 'line_item_id', 'prices': 'price_id', 'plans': 'plan_id'} %}
{%- for table, id in ids.items() %}
select '{{ table }}' as table_name, {{ id }} as object_id
from {{ ref('stg_stripe__' ~ table) }}
where unreadable_unit_amount is not null
{{- ' union all' if not loop.last }}
{%- endfor %}
