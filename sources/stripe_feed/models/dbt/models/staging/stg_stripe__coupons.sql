select
    id as coupon_id,
    account_id,
    {{ utc('created') }} as created_at,
    {{ utc('deleted_at') }} as deleted_at,
    deleted_at is not null as is_deleted,
    name,
    cast(percent_off as {{ type_percent() }}) as percent_off,
    amount_off,
    currency,
    duration,
    duration_in_months,
    case when {{ json_has('applies_to', 'products') }} then {{ json_list('applies_to', 'products') }} end as product_ids
from {{ source('stripe', 'coupons') }}
