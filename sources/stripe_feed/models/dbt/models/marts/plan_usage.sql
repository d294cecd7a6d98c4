with counted as (
    select
        price_id,
        subscription_item_id,
        subscription_id,
        customer_id,
        coalesce(quantity, 1) as quantity,
        mrr,
        {{ in_force('items', as_of()) }} as is_now,
        {{ in_force('items', add_days(as_of(), -30)) }} as was_before
    from {{ ref('int_stripe__net_mrr') }} as items
),

by_item as (
    select
        price_id,
        subscription_item_id,
        max(subscription_id) as subscription_id,
        max(customer_id) as customer_id,
        sum(case when is_now then quantity else 0 end) as quantity,
        sum(case when is_now then mrr else 0 end) as mrr,
        max(case when is_now then 1 else 0 end) as is_now,
        max(case when was_before then 1 else 0 end) as was_before
    from counted
    group by price_id, subscription_item_id
),

used as (
    select
        price_id,
        sum(is_now) as active_items,
        count(distinct case when is_now = 1 then subscription_id end) as active_subscriptions,
        count(distinct case when is_now = 1 then customer_id end) as active_customers,
        sum(quantity) as quantity,
        sum(mrr) as mrr,
        sum(case when is_now = 1 and was_before = 0 then 1 else 0 end) as new_items_30_days,
        sum(case when is_now = 0 and was_before = 1 then 1 else 0 end) as churned_items_30_days
    from by_item
    group by price_id
)

select
    prices.price_id as price_id,
    prices.product_id as product_id,
    products.name as product_name,
    prices.nickname as nickname,
    prices.currency as currency,
    prices.billing_interval as billing_interval,
    prices.billing_interval_count as billing_interval_count,
    prices.is_active as is_active,
    cast(coalesce(used.active_items, 0) as {{ type_bigint() }}) as active_items,
    cast(coalesce(used.active_subscriptions, 0) as {{ type_bigint() }}) as active_subscriptions,
    cast(coalesce(used.active_customers, 0) as {{ type_bigint() }}) as active_customers,
    cast(coalesce(used.quantity, 0) as {{ type_bigint() }}) as quantity,
    cast(coalesce(used.mrr, 0) as {{ type_bigint() }}) as mrr,
    {{ major('coalesce(used.mrr, 0)', 'prices.currency') }} as mrr_major,
    cast(coalesce(used.new_items_30_days, 0) as {{ type_bigint() }}) as new_items_30_days,
    cast(coalesce(used.churned_items_30_days, 0) as {{ type_bigint() }}) as churned_items_30_days
from {{ ref('stg_stripe__prices') }} as prices
left join {{ ref('stg_stripe__products') }} as products on prices.product_id = products.product_id
left join used on prices.price_id = used.price_id
where prices.type = 'recurring'
