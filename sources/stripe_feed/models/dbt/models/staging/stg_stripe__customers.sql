select
    id as customer_id,
    account_id,
    livemode as is_live,
    {{ utc('created') }} as created_at,
    {{ utc('deleted_at') }} as deleted_at,
    deleted_at is not null as is_deleted,
    name,
    business_name,
    individual_name,
    email,
    phone,
    description,
    {{ json_fields('address', {
        'address_line1': 'line1', 'address_line2': 'line2', 'address_city': 'city',
        'address_state': 'state', 'address_postal_code': 'postal_code', 'address_country': 'country'
    }) }},
    {{ json_fields('shipping', {
        'shipping_name': 'name', 'shipping_phone': 'phone',
        'shipping_line1': 'address.line1', 'shipping_line2': 'address.line2', 'shipping_city': 'address.city',
        'shipping_state': 'address.state', 'shipping_postal_code': 'address.postal_code', 'shipping_country': 'address.country'
    }) }},
    {{ json_fields('invoice_settings', {
        'default_payment_method_id': 'default_payment_method', 'invoice_footer': 'footer'
    }) }},
    default_source as default_source_id,
    currency,
    balance,
    delinquent as is_delinquent,
    tax_exempt,
    invoice_prefix,
    test_clock as test_clock_id,
    {{ json_text('discount', 'id') }} as discount_id,
    coalesce({{ json_text('discount', 'source.coupon.id') }}, {{ json_text('discount', 'coupon.id') }}, {{ json_text('discount', 'source.coupon') }}) as discount_coupon_id,
    {{ epoch(json_text('discount', 'start')) }} as discount_starts_at,
    {{ epoch(json_text('discount', 'end')) }} as discount_ends_at,
    metadata
from {{ source('stripe', 'customers') }}
