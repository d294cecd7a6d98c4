select
    line_item_id,
    account_id,
    is_live,
    invoice_id,
    coalesce(subscription_id, item_subscription_id, invoice_item_subscription_id) as subscription_id,
    coalesce(item_id, invoice_item_item_id, old_item_id) as subscription_item_id,
    coalesce(item_invoice_item_id, invoice_item_id, old_invoice_item_id) as invoice_item_id,
    coalesce(price_id, old_price_id, old_plan_id) as price_id,
    coalesce(product_id, old_product_id, old_plan_product_id) as product_id,
    coalesce(item_proration, invoice_item_proration, old_proration, 'false') = 'true' as is_proration,
    coalesce(line_type, case old_type when 'subscription' then 'subscription_item_details' when 'invoiceitem' then 'invoice_item_details' end) as line_type,
    currency,
    amount,
    subtotal,
    coalesce(cast(quantity_decimal as {{ type_amount() }}), cast(quantity as {{ type_amount() }})) as quantity,
    {{ amount_of('coalesce(unit_amount, old_unit_amount)') }} as unit_amount,
    {{ unreadable_amount('coalesce(unit_amount, old_unit_amount)') }} as unreadable_unit_amount,
    {{ epoch('period_start') }} as period_start_at,
    {{ epoch('period_end') }} as period_end_at,
    is_discountable,
    discounts,
    discount_amounts,
    taxes,
    {{ as_json('old_tax_amounts') }} as tax_amounts,
    description,
    metadata
from (
    select
        id as line_item_id,
        account_id,
        livemode as is_live,
        invoice as invoice_id,
        subscription as subscription_id,
        currency,
        amount,
        subtotal,
        quantity,
        quantity_decimal,
        discountable as is_discountable,
        discounts,
        discount_amounts,
        taxes,
        description,
        metadata,
        {{ json_fields('parent', {
            'line_type': 'type',
            'item_id': 'subscription_item_details.subscription_item',
            'item_subscription_id': 'subscription_item_details.subscription',
            'item_invoice_item_id': 'subscription_item_details.invoice_item',
            'item_proration': 'subscription_item_details.proration',
            'invoice_item_id': 'invoice_item_details.invoice_item',
            'invoice_item_item_id': 'invoice_item_details.subscription_item',
            'invoice_item_subscription_id': 'invoice_item_details.subscription',
            'invoice_item_proration': 'invoice_item_details.proration'
        }) }},
        {{ json_fields('pricing', {
            'price_id': 'price_details.price', 'product_id': 'price_details.product', 'unit_amount': 'unit_amount_decimal'
        }) }},
        {{ json_fields('period', {'period_start': 'start', 'period_end': 'end'}) }},
        {{ json_fields('extra', {
            'old_item_id': 'subscription_item', 'old_invoice_item_id': 'invoice_item', 'old_proration': 'proration', 'old_type': 'type',
            'old_price_id': 'price.id', 'old_product_id': 'price.product', 'old_unit_amount': 'price.unit_amount_decimal',
            'old_plan_id': 'plan.id', 'old_tax_amounts': 'tax_amounts', 'old_plan_product_id': 'plan.product'
        }) }}
    from {{ source('stripe', 'invoice_line_items') }}
) as fields
