{%- set valid_to %}
{%- if var('churn_timing') == 'cancel' -%}
case when history.canceled_at < coalesce(history.valid_to, {{ forever() }}) then history.canceled_at else history.valid_to end
{%- else -%}
history.valid_to
{%- endif %}
{%- endset %}
{#- The units that are billed: whole packages where the price sells packages. #}
{%- set units -%}
case
            when history.divide_quantity_by > 1 then
                cast({{ whole_div('coalesce(history.quantity, 1)', 'history.divide_quantity_by') }} as {{ type_bigint() }})
                + case when history.round_quantity = 'up' and mod(coalesce(history.quantity, 1), history.divide_quantity_by) > 0 then 1 else 0 end
            else coalesce(history.quantity, 1)
        end
{%- endset %}
{%- set is_counted -%}
history.status in ('active', 'past_due')
        and history.billing_interval in ('day', 'week', 'month', 'year')
        {%- if var('paused_collection') == 'excluded' %}
        and history.collection_pause_behavior is null
        {%- endif %}
        and ({{ valid_to }} is null or {{ valid_to }} > history.valid_from)
{%- endset -%}

{#- The spans whose value the price alone does not tell. -#}
with unpriced as (
    select
        history.subscription_item_id as subscription_item_id,
        history.valid_from as valid_from,
        history.price_id as price_id,
        history.tiers_mode as tiers_mode,
        {{ units }} as units,
        history.billing_scheme = 'tiered' as is_tiered,
        coalesce(history.usage_type, 'licensed') = 'metered' as is_metered
    from {{ ref('subscription_item_history') }} as history
    where
        {{ is_counted }}
        {%- if var('metered') == 'last_invoice' %}
        and (history.billing_scheme = 'tiered' or history.unit_amount is null or history.usage_type = 'metered')
        {%- else %}
        and (history.billing_scheme = 'tiered' or history.unit_amount is null)
        and coalesce(history.usage_type, 'licensed') <> 'metered'
        {%- endif %}
),

tiered as (
    select
        spans.subscription_item_id as subscription_item_id,
        spans.valid_from as valid_from,
        sum(case
            when spans.tiers_mode = 'volume' then
                case when spans.units > tiers.units_below and (tiers.up_to is null or spans.units <= tiers.up_to)
                    then tiers.unit_amount * spans.units + tiers.flat_amount else 0 end
            when spans.units > tiers.units_below then
                tiers.unit_amount * ((case when tiers.up_to < spans.units then tiers.up_to else spans.units end) - tiers.units_below) + tiers.flat_amount
            else 0
        end) as amount
    from unpriced as spans
    inner join {{ ref('int_stripe__price_tiers') }} as tiers on tiers.price_id = spans.price_id
    where spans.is_tiered and not spans.is_metered
    group by spans.subscription_item_id, spans.valid_from
),

{#- Amounts that only an invoice tells: of the newest line up to the span's start, else of the oldest. #}
invoiced as (
    select subscription_item_id, valid_from, amount
    from (
        select
            spans.subscription_item_id as subscription_item_id,
            spans.valid_from as valid_from,
            periods.amount as amount,
            row_number() over (
                partition by spans.subscription_item_id, spans.valid_from
                order by
                    case when periods.period_start_at <= spans.valid_from then 0 else 1 end,
                    case when periods.period_start_at <= spans.valid_from then periods.period_start_at end desc,
                    periods.period_start_at
            ) as position
        from unpriced as spans
        inner join {{ ref('int_stripe__item_periods') }} as periods on periods.subscription_item_id = spans.subscription_item_id
        left join tiered on tiered.subscription_item_id = spans.subscription_item_id and tiered.valid_from = spans.valid_from
        where tiered.amount is null
    ) as candidates
    where position = 1
),

spans as (
    select
        history.subscription_item_id as subscription_item_id,
        history.subscription_id as subscription_id,
        history.customer_id as customer_id,
        history.valid_from as valid_from,
        {{ valid_to }} as valid_to,
        history.status as status,
        history.quantity as quantity,
        {{ price_columns('history') }},
        {{ units }} as units,
        history.billing_scheme = 'tiered' as is_tiered,
        coalesce(history.usage_type, 'licensed') = 'metered' as is_metered,
        history.collection_pause_behavior is not null as is_collection_paused,
        history.subscription_discounts as subscription_discounts,
        history.item_discounts as item_discounts,
        history.is_complete as is_complete,
        history.basis as basis,
        history.change_id as change_id,
        history.line_item_id as line_item_id
    from {{ ref('subscription_item_history') }} as history
    where
        {{ is_counted }}
),

billed as (
    select
        spans.subscription_item_id as subscription_item_id,
        spans.subscription_id as subscription_id,
        spans.customer_id as customer_id,
        spans.valid_from as valid_from,
        spans.valid_to as valid_to,
        spans.status as status,
        spans.quantity as quantity,
        {{ price_columns('spans') }},
        spans.is_metered as is_metered,
        spans.is_collection_paused as is_collection_paused,
        spans.subscription_discounts as subscription_discounts,
        spans.item_discounts as item_discounts,
        spans.is_complete as is_complete,
        spans.basis as basis,
        spans.change_id as change_id,
        spans.line_item_id as line_item_id,
        case
            when spans.is_metered then {% if var('metered') == 'last_invoice' %}coalesce(invoiced.amount, 0){% else %}0{% endif %}
            when spans.is_tiered or spans.unit_amount is null then coalesce(cast(round(tiered.amount) as {{ type_bigint() }}), invoiced.amount, 0)
            else {{ whole('spans.unit_amount * spans.units') }}
        end as billed_amount,
        case
            when spans.is_metered then {% if var('metered') == 'last_invoice' %}true{% else %}false{% endif %}
            when spans.is_tiered or spans.unit_amount is null then tiered.amount is null
            else false
        end as is_estimated
    from spans
    left join tiered on tiered.subscription_item_id = spans.subscription_item_id and tiered.valid_from = spans.valid_from
    left join invoiced on invoiced.subscription_item_id = spans.subscription_item_id and invoiced.valid_from = spans.valid_from
),

valued as (
    select
        billed.*,
        {{ monthly('billed_amount') }} as mrr
    from billed
)

select
    subscription_item_id,
    subscription_id,
    customer_id,
    product_id,
    price_id,
    currency,
    valid_from,
    valid_to,
    status,
    quantity,
    unit_amount,
    billing_interval,
    billing_interval_count,
    billed_amount,
    mrr,
    {{ major('mrr', 'currency') }} as mrr_major,
    is_metered,
    is_estimated,
    coalesce(tax_behavior, 'unspecified') = 'inclusive' as is_tax_inclusive,
    is_collection_paused,
    subscription_discounts,
    item_discounts,
    subscription_discounts <> '[]' or item_discounts <> '[]' as has_discount,
    is_complete,
    basis,
    change_id,
    line_item_id
from valued
