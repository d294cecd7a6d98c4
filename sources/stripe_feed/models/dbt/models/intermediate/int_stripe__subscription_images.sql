{{ config(materialized='incremental', full_refresh=false) }}

{%- set state = {
    'status': 'status', 'currency': 'currency', 'created': 'created', 'start_date': 'start_date',
    'trial_start': 'trial_start', 'trial_end': 'trial_end',
    'cancel_at_period_end': 'cancel_at_period_end', 'cancel_at': 'cancel_at', 'canceled_at': 'canceled_at', 'ended_at': 'ended_at',
    'pause_behavior': 'pause_collection.behavior', 'paused_at': 'status_details.paused.transitioned_at',
    'old_discount': 'discount.id', 'period_start': 'current_period_start'
} %}
{%- set item = {
    'subscription_item_id': 'id', 'item_created': 'created', 'quantity': 'quantity', 'item_period_start': 'current_period_start',
    'plan_id': 'plan.id', 'plan_product': 'plan.product', 'plan_currency': 'plan.currency',
    'plan_amount': 'plan.amount_decimal', 'plan_interval': 'plan.interval', 'plan_interval_count': 'plan.interval_count',
    'plan_usage_type': 'plan.usage_type'
} %}

{%- set previous, told = {}, {'has_discounts': 'discounts'} %}
{%- for name, path in state.items() %}
{%- set _ = previous.update({'previous_' ~ name: path}) %}
{%- set _ = told.update({'has_' ~ name: path.split('.')[0]}) %}
{%- endfor %}

with changes as (
    select change_id, account_id, object_id as subscription_id, customer_id, op, before_quality, changed_at, load_id, load_seq, after_image, previous_values
    from {{ ref('stg_stripe__changes') }}
    where resource = 'subscriptions' and op <> 'd' and after_image is not null
    {%- if is_incremental() %}
        and change_id not in (select change_id from {{ this }})
    {%- endif %}
),

{#- The state before a change matters for the first change of a subscription only. #}
firsts as (
    select change_id, subscription_id, after_image, previous_values
    from changes
    where
        op = 'u' and before_quality <> 'none' and previous_values is not null
        and change_id in (
            select change_id
            from (
                select change_id, row_number() over (partition by subscription_id order by changed_at, load_id, load_seq, change_id) as position
                from changes
            ) as ordered
            where position = 1
        )
),

after_states as (
    select change_id, 'after' as side, {{ json_fields('after_image', dict(state, has_more='items.has_more'), {'discounts': 'discounts'}) }}
    from changes
),

{#- A field that a change names had the value that the change tells; every other is as after it. #}
before_fields as (
    select
        change_id,
        {{ json_fields('after_image', dict(state, has_more='items.has_more'), {'discounts': 'discounts'}) }},
        {{ json_fields('previous_values', previous, {'previous_discounts': 'discounts'}) }},
        {{ json_has_fields('previous_values', told) }}
    from firsts
),

before_states as (
    select
        change_id,
        'before' as side,
        {%- for name in state %}
        case when has_{{ name }} then previous_{{ name }} else {{ name }} end as {{ name }},
        {%- endfor %}
        has_more,
        case when has_discounts then previous_discounts else discounts end as discounts
    from before_fields
),

with_old_items as (
    select change_id, previous_values from firsts where {{ json_has('previous_values', 'items.data') }}
),

with_same_items as (
    select change_id, after_image from firsts where not {{ json_has('previous_values', 'items.data') }}
),

elements as (
    select change_id, 'after' as side, element from {{ json_rows('changes', 'after_image', 'items.data', ['change_id']) }} as after_elements
    union all
    select change_id, 'before' as side, element from {{ json_rows('with_old_items', 'previous_values', 'items.data', ['change_id']) }} as old_elements
    union all
    select change_id, 'before' as side, element from {{ json_rows('with_same_items', 'after_image', 'items.data', ['change_id']) }} as same_elements
),

items as (
    select change_id, side, {{ json_fields('element', dict(item, **price_paths('price.')), {'item_discounts': 'discounts'}) }}
    from elements
),

states as (
    select * from after_states
    union all
    select * from before_states
)

select
    changes.change_id as change_id,
    states.side as side,
    changes.account_id as account_id,
    changes.subscription_id as subscription_id,
    changes.customer_id as customer_id,
    changes.op as op,
    changes.changed_at as changed_at,
    changes.load_id as load_id,
    changes.load_seq as load_seq,
    states.status as status,
    {{ epoch('states.created') }} as created_at,
    {{ epoch('coalesce(states.start_date, states.created)') }} as started_at,
    {{ epoch('states.trial_start') }} as trial_start_at,
    {{ epoch('states.trial_end') }} as trial_end_at,
    states.cancel_at_period_end = 'true' as cancel_at_period_end,
    {{ epoch('states.cancel_at') }} as cancels_at,
    {{ epoch('states.canceled_at') }} as canceled_at,
    {{ epoch('states.ended_at') }} as ended_at,
    {{ epoch('states.paused_at') }} as paused_at,
    states.pause_behavior as collection_pause_behavior,
    case when states.old_discount is not null then concat('["', states.old_discount, '"]') else states.discounts end as subscription_discounts,
    coalesce(states.has_more, 'false') = 'true' as has_more_items,
    items.subscription_item_id as subscription_item_id,
    {{ epoch('items.item_created') }} as item_created_at,
    {{ epoch('coalesce(items.item_period_start, states.period_start)') }} as period_start_at,
    {{ integer_of('items.quantity') }} as quantity,
    coalesce(items.price_id, items.plan_id) as price_id,
    coalesce(items.product_id, items.plan_product) as product_id,
    coalesce(items.price_currency, items.plan_currency, states.currency) as currency,
    {{ amount_of('coalesce(items.unit_amount, items.plan_amount)') }} as unit_amount,
    items.billing_scheme as billing_scheme,
    items.tiers_mode as tiers_mode,
    coalesce(items.billing_interval, items.plan_interval) as billing_interval,
    coalesce({{ integer_of('coalesce(items.billing_interval_count, items.plan_interval_count)') }}, 1) as billing_interval_count,
    coalesce(items.usage_type, items.plan_usage_type) as usage_type,
    {{ integer_of('items.divide_quantity_by') }} as divide_quantity_by,
    items.round_quantity as round_quantity,
    items.tax_behavior as tax_behavior,
    coalesce(items.item_discounts, '[]') as item_discounts
from changes
inner join states on states.change_id = changes.change_id
left join items on items.change_id = states.change_id and items.side = states.side
