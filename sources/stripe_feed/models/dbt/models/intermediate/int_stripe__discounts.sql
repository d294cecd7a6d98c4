{# Every discount that was ever seen, with what its coupon said then: Stripe forgets both. #}
{{ config(materialized='incremental', full_refresh=false) }}

with discounts as (
    select discount_id, account_id, coupon_id, starts_at, ends_at
    from {{ ref('stg_stripe__discounts') }}
    union all
    select discount_id, account_id, discount_coupon_id as coupon_id, discount_starts_at as starts_at, discount_ends_at as ends_at
    from {{ ref('stg_stripe__customers') }}
    where discount_id is not null
),

distinct_discounts as (
    select
        discount_id,
        max(account_id) as account_id,
        max(coupon_id) as coupon_id,
        min(starts_at) as starts_at,
        max(ends_at) as ends_at
    from discounts
    group by discount_id
)

select
    discounts.discount_id as discount_id,
    discounts.account_id as account_id,
    discounts.coupon_id as coupon_id,
    discounts.starts_at as starts_at,
    discounts.ends_at as ends_at,
    coupons.percent_off as percent_off,
    coupons.amount_off as amount_off,
    coupons.currency as currency,
    coupons.duration as duration,
    coupons.product_ids as product_ids
from distinct_discounts as discounts
inner join {{ ref('stg_stripe__coupons') }} as coupons on coupons.coupon_id = discounts.coupon_id
{%- if is_incremental() %}
where discounts.discount_id not in (select discount_id from {{ this }})
{%- endif %}
