select
    items.subscription_item_id as subscription_item_id,
    items.account_id as account_id,
    items.subscription_id as subscription_id,
    subscriptions.customer as customer_id,
    items.created_at as created_at,
    items.quantity as quantity,
    {{ typed_price('items') }},
    {{ unreadable_amount('items.unit_amount') }} as unreadable_unit_amount,
    coalesce(items.period_start_at, {{ epoch(json_text('subscriptions.extra', 'current_period_start')) }}) as period_start_at,
    coalesce(items.period_end_at, {{ epoch(json_text('subscriptions.extra', 'current_period_end')) }}) as period_end_at,
    items.billed_until_at as billed_until_at,
    {{ json_list('items.discounts') }} as discount_ids,
    items.metadata as metadata
from (
    select
        id as subscription_item_id,
        account_id,
        subscription as subscription_id,
        {{ utc('created') }} as created_at,
        quantity,
        {{ json_fields('price', price_paths()) }},
        {{ utc('current_period_start') }} as period_start_at,
        {{ utc('current_period_end') }} as period_end_at,
        {{ utc('billed_until') }} as billed_until_at,
        discounts,
        metadata
    from {{ source('stripe', 'subscription_items') }}
) as items
left join {{ source('stripe', 'subscriptions') }} as subscriptions on subscriptions.id = items.subscription_id
