{# The items of subscriptions with a discount, cut at every moment at which an item or a discount of the subscription begins or ends. #}
with customer_discounts as (
    select customers.customer_id as customer_id, concat('["', customers.discount_id, '"]') as discount_ids
    from {{ ref('stg_stripe__customers') }} as customers
    where customers.discount_id is not null
),

discountable as (
    select
        items.subscription_item_id as subscription_item_id,
        items.subscription_id as subscription_id,
        items.customer_id as customer_id,
        items.product_id as product_id,
        items.price_id as price_id,
        items.currency as currency,
        items.billing_interval as billing_interval,
        items.billing_interval_count as billing_interval_count,
        items.valid_from as valid_from,
        coalesce(items.valid_to, {{ forever() }}) as valid_to,
        items.quantity as quantity,
        items.mrr as mrr,
        items.is_estimated as is_estimated,
        items.basis as basis,
        items.item_discounts as item_discounts,
        case when items.subscription_discounts <> '[]' then items.subscription_discounts else coalesce(customer_discounts.discount_ids, '[]') end as subscription_discounts,
        case when items.subscription_discounts <> '[]' then 'subscription' else 'customer' end as level
    from {{ ref('mrr_items') }} as items
    left join customer_discounts on customer_discounts.customer_id = items.customer_id
    where items.subscription_id in (
        select subscription_id from {{ ref('mrr_items') }} where has_discount
        union distinct
        select candidates.subscription_id from {{ ref('mrr_items') }} as candidates
        inner join customer_discounts on customer_discounts.customer_id = candidates.customer_id
    )
),

texts as (
    select subscription_id, item_discounts as discount_text from discountable where item_discounts <> '[]'
    union distinct
    select subscription_id, subscription_discounts as discount_text from discountable where subscription_discounts <> '[]'
),

lists as (
    select subscription_id, {{ as_json('discount_text') }} as discount_list from texts
),

used as (
    select distinct subscription_id, {{ json_text('element', '') }} as discount_id
    from {{ json_rows('lists', 'discount_list', '', ['subscription_id']) }} as elements
),

moments as (
    select subscription_id, valid_from as moment from discountable
    union distinct
    select subscription_id, valid_to as moment from discountable
    union distinct
    select used.subscription_id as subscription_id, discounts.starts_at as moment
    from used
    inner join {{ ref('int_stripe__discounts') }} as discounts on discounts.discount_id = used.discount_id
    union distinct
    select used.subscription_id as subscription_id, discounts.ends_at as moment
    from used
    inner join {{ ref('int_stripe__discounts') }} as discounts on discounts.discount_id = used.discount_id
    where discounts.ends_at is not null
),

segments as (
    select subscription_id, moment as valid_from, lead({{ nullable('moment') }}) over (partition by subscription_id order by moment) as valid_to
    from moments
)

select
    items.subscription_item_id as subscription_item_id,
    items.subscription_id as subscription_id,
    items.customer_id as customer_id,
    items.product_id as product_id,
    items.price_id as price_id,
    items.currency as currency,
    items.billing_interval as billing_interval,
    items.billing_interval_count as billing_interval_count,
    segments.valid_from as valid_from,
    case when segments.valid_to < {{ forever() }} then segments.valid_to end as valid_to,
    items.quantity as quantity,
    items.mrr as mrr,
    items.is_estimated as is_estimated,
    items.basis as basis,
    items.item_discounts as item_discounts,
    items.subscription_discounts as subscription_discounts,
    items.level as level
from discountable as items
inner join segments on
    segments.subscription_id = items.subscription_id
    and segments.valid_from >= items.valid_from
    and segments.valid_from < items.valid_to
