with changes as (
    select distinct subscription_id, change_id, changed_at, load_id, load_seq, status, ended_at
    from {{ ref('int_stripe__subscription_images') }}
    where side = 'after'
),

{#- Of the changes in one second the last one counts. #}
numbered as (
    select
        subscription_id, change_id, changed_at, status, ended_at,
        row_number() over (partition by subscription_id, changed_at order by load_id desc, load_seq desc, change_id desc) as position
    from changes
),

followed as (
    select
        change_id,
        changed_at,
        lead({{ nullable('changed_at') }}) over (partition by subscription_id order by changed_at) as next_changed_at,
        lead({{ nullable('status') }}) over (partition by subscription_id order by changed_at) as next_status,
        lead({{ nullable('ended_at') }}) over (partition by subscription_id order by changed_at) as next_ended_at
    from numbered
    where position = 1
),

spans as (
    select
        change_id,
        changed_at as valid_from,
        case when next_status = 'canceled' and next_ended_at < next_changed_at then next_ended_at else next_changed_at end as valid_to
    from followed
),

observed as (
    select
        images.subscription_item_id as subscription_item_id,
        images.subscription_id as subscription_id,
        images.customer_id as customer_id,
        spans.valid_from as valid_from,
        spans.valid_to as valid_to,
        images.status as status,
        images.quantity as quantity,
        {{ price_columns('images') }},
        images.canceled_at as canceled_at,
        images.collection_pause_behavior as collection_pause_behavior,
        images.subscription_discounts as subscription_discounts,
        images.item_discounts as item_discounts,
        not images.has_more_items as is_complete,
        'observed' as basis,
        images.change_id as change_id,
        cast(null as {{ type_text() }}) as line_item_id
    from spans
    inner join {{ ref('int_stripe__subscription_images') }} as images on images.change_id = spans.change_id and images.side = 'after'
    where images.subscription_item_id is not null and (spans.valid_to is null or spans.valid_to > spans.valid_from)
),

{#- Items beyond the ten that an image embeds, as they are now. #}
hidden as (
    select
        items.subscription_item_id as subscription_item_id,
        states.subscription_id as subscription_id,
        states.customer_id as customer_id,
        states.valid_from as valid_from,
        states.valid_to as valid_to,
        states.status as status,
        items.quantity as quantity,
        {{ price_columns('items') }},
        states.canceled_at as canceled_at,
        states.collection_pause_behavior as collection_pause_behavior,
        states.subscription_discounts as subscription_discounts,
        items.discount_ids as item_discounts,
        false as is_complete,
        'assumed' as basis,
        states.change_id as change_id,
        cast(null as {{ type_text() }}) as line_item_id
    from (
        select distinct
            observed.subscription_id as subscription_id, observed.customer_id as customer_id, observed.valid_from as valid_from,
            observed.valid_to as valid_to, observed.status as status, observed.canceled_at as canceled_at,
            observed.collection_pause_behavior as collection_pause_behavior,
            observed.subscription_discounts as subscription_discounts, observed.change_id as change_id
        from observed
        where not observed.is_complete
    ) as states
    inner join {{ ref('stg_stripe__subscription_items') }} as items on items.subscription_id = states.subscription_id
    left join observed as shown on shown.change_id = states.change_id and shown.subscription_item_id = items.subscription_item_id
    where shown.change_id is null
),

bases as (
    select * from {{ ref('int_stripe__subscription_bases') }}
),

{#- Before the first change: the items of the base, and the invoice lines of earlier periods. #}
base_items as (
    select
        bases.subscription_id as subscription_id,
        images.subscription_item_id as subscription_item_id,
        images.item_created_at as item_created_at,
        images.period_start_at as period_start_at,
        images.quantity as quantity,
        {{ price_columns('images') }},
        images.item_discounts as item_discounts
    from bases
    inner join {{ ref('int_stripe__subscription_images') }} as images on images.change_id = bases.change_id and images.side = bases.side
    where images.subscription_item_id is not null
    union all
    select
        bases.subscription_id as subscription_id,
        items.subscription_item_id as subscription_item_id,
        items.created_at as item_created_at,
        items.period_start_at as period_start_at,
        items.quantity as quantity,
        {{ price_columns('items') }},
        items.discount_ids as item_discounts
    from bases
    inner join {{ ref('stg_stripe__subscription_items') }} as items on items.subscription_id = bases.subscription_id
    where bases.change_id is null
),

begun_items as (
    select
        base_items.*,
        case when base_items.item_created_at > bases.created_at then base_items.item_created_at else bases.started_at end as begins_at
    from base_items
    inner join bases on bases.subscription_id = base_items.subscription_id
),

{#- When an item's own state begins to count. #}
own_items as (
    select begun_items.*, greatest(begins_at, coalesce(period_start_at, begins_at)) as counts_from
    from begun_items
),

lines as (
    select * from {{ ref('int_stripe__item_periods') }}
),

periods as (
    select
        lines.subscription_item_id as subscription_item_id,
        lines.subscription_id as subscription_id,
        lines.period_start_at as begins_at,
        lines.period_end_at as ends_at,
        lines.quantity as quantity,
        lines.price_id as price_id,
        coalesce(lines.product_id, prices.product_id) as product_id,
        lines.currency as currency,
        coalesce(lines.unit_amount, prices.unit_amount) as unit_amount,
        prices.billing_scheme as billing_scheme,
        prices.tiers_mode as tiers_mode,
        prices.billing_interval as billing_interval,
        coalesce(prices.billing_interval_count, 1) as billing_interval_count,
        prices.usage_type as usage_type,
        prices.divide_quantity_by as divide_quantity_by,
        prices.round_quantity as round_quantity,
        prices.tax_behavior as tax_behavior,
        coalesce(own_items.item_discounts, '[]') as item_discounts,
        'invoice' as basis,
        lines.line_item_id as line_item_id
    from lines
    left join own_items on own_items.subscription_item_id = lines.subscription_item_id
    left join {{ ref('stg_stripe__prices') }} as prices on prices.price_id = lines.price_id
    where own_items.counts_from is null or lines.period_start_at < own_items.counts_from
    union all
    select
        own_items.subscription_item_id as subscription_item_id,
        own_items.subscription_id as subscription_id,
        own_items.counts_from as begins_at,
        cast(null as {{ type_timestamp() }}) as ends_at,
        own_items.quantity as quantity,
        {{ price_columns('own_items') }},
        own_items.item_discounts as item_discounts,
        case when lines.line_item_id is not null then 'invoice' else 'assumed' end as basis,
        lines.line_item_id as line_item_id
    from own_items
    left join lines on
        lines.subscription_item_id = own_items.subscription_item_id
        and lines.period_start_at = own_items.counts_from
        and lines.price_id = own_items.price_id
        and coalesce(lines.quantity, 1) = coalesce(own_items.quantity, 1)
),

ordered as (
    select
        periods.*,
        lead({{ nullable('periods.begins_at') }}) over (partition by periods.subscription_item_id order by periods.begins_at) as next_begins_at,
        row_number() over (partition by periods.subscription_item_id order by periods.begins_at) as position
    from periods
),

{#- Each period; the gap after it; and for an item of the base the time before its first period. #}
covered as (
    select
        ordered.subscription_item_id as subscription_item_id, ordered.subscription_id as subscription_id,
        ordered.begins_at as valid_from,
        least(coalesce(ordered.ends_at, {{ forever() }}), coalesce(ordered.next_begins_at, {{ forever() }})) as valid_to,
        ordered.quantity as quantity, {{ price_columns('ordered') }}, ordered.item_discounts as item_discounts,
        ordered.basis as basis, ordered.line_item_id as line_item_id
    from ordered
    union all
    select
        ordered.subscription_item_id as subscription_item_id, ordered.subscription_id as subscription_id,
        ordered.ends_at as valid_from,
        ordered.next_begins_at as valid_to,
        ordered.quantity as quantity, {{ price_columns('ordered') }}, ordered.item_discounts as item_discounts,
        'assumed' as basis, ordered.line_item_id as line_item_id
    from ordered
    where ordered.ends_at < ordered.next_begins_at
    union all
    select
        own_items.subscription_item_id as subscription_item_id, own_items.subscription_id as subscription_id,
        own_items.begins_at as valid_from,
        ordered.begins_at as valid_to,
        own_items.quantity as quantity, {{ price_columns('own_items') }}, own_items.item_discounts as item_discounts,
        'assumed' as basis, cast(null as {{ type_text() }}) as line_item_id
    from own_items
    inner join ordered on ordered.subscription_item_id = own_items.subscription_item_id and ordered.position = 1
    where own_items.begins_at < ordered.begins_at
),

{#- The status of a subscription before its first change. #}
status_spans as (
    select
        bases.subscription_id as subscription_id,
        case parts.n
            when 0 then 'active'
            when 1 then 'trialing'
            when 2 then 'active'
            else bases.status
        end as status,
        case parts.n
            when 0 then bases.started_at
            when 1 then bases.trial_start_at
            when 2 then coalesce(bases.trial_end_at, bases.started_at)
            else greatest(bases.status_from, bases.started_at)
        end as valid_from,
        least(
            case parts.n
                when 0 then bases.trial_start_at
                when 1 then bases.trial_end_at
                when 2 then bases.status_from
                else {{ forever() }}
            end,
            coalesce(bases.ended_at, {{ forever() }}),
            coalesce(bases.first_changed_at, {{ forever() }})
        ) as valid_to
    from bases
    cross join (select numbers.n as n from {{ numbers() }} as numbers where numbers.n < 4) as parts
    where parts.n >= 2 or bases.trial_start_at is not null
),

reconstructed as (
    select
        covered.subscription_item_id as subscription_item_id,
        covered.subscription_id as subscription_id,
        covered.quantity as quantity,
        {{ price_columns('covered') }},
        covered.item_discounts as item_discounts,
        covered.basis as basis,
        covered.line_item_id as line_item_id,
        bases.customer_id as customer_id,
        status_spans.status as status,
        bases.canceled_at as canceled_at,
        bases.collection_pause_behavior as collection_pause_behavior,
        bases.subscription_discounts as subscription_discounts,
        greatest(covered.valid_from, status_spans.valid_from) as part_from,
        least(covered.valid_to, status_spans.valid_to) as part_to
    from covered
    inner join bases on bases.subscription_id = covered.subscription_id
    inner join status_spans on
        status_spans.subscription_id = covered.subscription_id
        and status_spans.valid_from < covered.valid_to
        and status_spans.valid_to > covered.valid_from
        and status_spans.valid_from < status_spans.valid_to
)

select * from observed
union all
select * from hidden
union all
select
    subscription_item_id,
    subscription_id,
    customer_id,
    part_from as valid_from,
    case when part_to < {{ forever() }} then part_to end as valid_to,
    status,
    quantity,
    {{ price_columns('reconstructed') }},
    canceled_at,
    collection_pause_behavior,
    subscription_discounts,
    item_discounts,
    true as is_complete,
    basis,
    cast(null as {{ type_text() }}) as change_id,
    line_item_id
from reconstructed
