{# Where Stripe's amount per unit is no number, it counts as unknown: MRR comes from an invoice then, or is 0. #}
select 'subscription_items' as table_name, subscription_item_id as object_id
from {{ ref('stg_stripe__subscription_items') }}
where unreadable_unit_amount is not null
union all
select 'invoice_line_items' as table_name, line_item_id as object_id
from {{ ref('stg_stripe__invoice_line_items') }}
where unreadable_unit_amount is not null
union all
select 'prices' as table_name, price_id as object_id
from {{ ref('stg_stripe__prices') }}
where unreadable_unit_amount is not null
union all
select 'plans' as table_name, plan_id as object_id
from {{ ref('stg_stripe__plans') }}
where unreadable_unit_amount is not null
