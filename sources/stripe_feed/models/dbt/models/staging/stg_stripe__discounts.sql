select
    id as discount_id,
    account_id,
    {{ utc(quoted('start')) }} as starts_at,
    {{ utc(quoted('end')) }} as ends_at,
    coalesce({{ json_text('source', 'coupon.id') }}, {{ json_text('extra', 'coupon.id') }}, {{ json_text('source', 'coupon') }}) as coupon_id
from {{ source('stripe', 'discounts') }}
