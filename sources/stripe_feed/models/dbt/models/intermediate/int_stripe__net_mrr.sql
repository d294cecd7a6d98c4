{# What each item is worth a month, before and after discounts; a span is cut where a discount begins or ends. #}
{%- if var('discounts') == 'none' %}
select
    subscription_item_id, subscription_id, customer_id, product_id, price_id, currency, valid_from, valid_to, quantity,
    mrr as gross_mrr, cast(0 as {{ type_bigint() }}) as discount, mrr, is_estimated, basis
from {{ ref('mrr_items') }}
{%- else %}
with discounts as (
    select subscription_item_id, valid_from, {{ total('discount') }} as discount
    from {{ ref('mrr_discounts') }}
    group by subscription_item_id, valid_from
)

select
    cells.subscription_item_id as subscription_item_id,
    cells.subscription_id as subscription_id,
    cells.customer_id as customer_id,
    cells.product_id as product_id,
    cells.price_id as price_id,
    cells.currency as currency,
    cells.valid_from as valid_from,
    cells.valid_to as valid_to,
    cells.quantity as quantity,
    cells.mrr as gross_mrr,
    coalesce(discounts.discount, 0) as discount,
    cells.mrr - coalesce(discounts.discount, 0) as mrr,
    cells.is_estimated as is_estimated,
    cells.basis as basis
from {{ ref('int_stripe__discountable_mrr') }} as cells
left join discounts on discounts.subscription_item_id = cells.subscription_item_id and discounts.valid_from = cells.valid_from
union all
select
    items.subscription_item_id as subscription_item_id,
    items.subscription_id as subscription_id,
    items.customer_id as customer_id,
    items.product_id as product_id,
    items.price_id as price_id,
    items.currency as currency,
    items.valid_from as valid_from,
    items.valid_to as valid_to,
    items.quantity as quantity,
    items.mrr as gross_mrr,
    cast(0 as {{ type_bigint() }}) as discount,
    items.mrr as mrr,
    items.is_estimated as is_estimated,
    items.basis as basis
from {{ ref('mrr_items') }} as items
left join (select distinct subscription_id from {{ ref('int_stripe__discountable_mrr') }}) as discounted on discounted.subscription_id = items.subscription_id
where discounted.subscription_id is null
{%- endif %}
