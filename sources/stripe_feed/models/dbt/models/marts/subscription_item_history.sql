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

{#- The invoiced periods until then; the next one, or the item's own state, ends a period that is longer. #}
periods as (
    select
        lines.subscription_item_id as subscription_item_id,
        lines.subscription_id as subscription_id,
        lines.period_start_at as begins_at,
        lines.period_end_at as ends_at,
        least(coalesce(lines.next_period_start_at, {{ forever() }}), coalesce(own_items.counts_from, {{ forever() }})) as next_begins_at,
        lines.quantity as quantity,
        lines.price_id as price_id,
        lines.product_id as product_id,
        lines.currency as currency,
        lines.unit_amount as unit_amount,
        coalesce(own_items.item_discounts, '[]') as item_discounts,
        lines.line_item_id as line_item_id
    from {{ ref('int_stripe__item_periods') }} as lines
    left join own_items on own_items.subscription_item_id = lines.subscription_item_id
    where own_items.counts_from is null or lines.period_start_at < own_items.counts_from
),

{#- Each period, and the gap after it; of an item of the base its own state, and the time before its first period. #}
covered as (
    select
        periods.subscription_item_id as subscription_item_id,
        periods.subscription_id as subscription_id,
        case parts.n when 0 then periods.begins_at else periods.ends_at end as valid_from,
        case parts.n when 0 then least(periods.ends_at, periods.next_begins_at) else periods.next_begins_at end as valid_to,
        periods.quantity as quantity,
        periods.price_id as price_id,
        coalesce(periods.product_id, prices.product_id) as product_id,
        periods.currency as currency,
        coalesce(periods.unit_amount, prices.unit_amount) as unit_amount,
        prices.billing_scheme as billing_scheme,
        prices.tiers_mode as tiers_mode,
        prices.billing_interval as billing_interval,
        coalesce(prices.billing_interval_count, 1) as billing_interval_count,
        prices.usage_type as usage_type,
        prices.divide_quantity_by as divide_quantity_by,
        prices.round_quantity as round_quantity,
        prices.tax_behavior as tax_behavior,
        periods.item_discounts as item_discounts,
        case parts.n when 0 then 'invoice' else 'assumed' end as basis,
        periods.line_item_id as line_item_id
    from periods
    cross join (select numbers.n as n from {{ numbers() }} as numbers where numbers.n < 2) as parts
    left join {{ ref('stg_stripe__prices') }} as prices on prices.price_id = periods.price_id
    where parts.n = 0 or (periods.ends_at < periods.next_begins_at and periods.next_begins_at < {{ forever() }})
    union all
    select
        own_items.subscription_item_id as subscription_item_id,
        own_items.subscription_id as subscription_id,
        own_items.counts_from as valid_from,
        {{ forever() }} as valid_to,
        own_items.quantity as quantity,
        {{ price_columns('own_items') }},
        own_items.item_discounts as item_discounts,
        case when lines.line_item_id is not null then 'invoice' else 'assumed' end as basis,
        lines.line_item_id as line_item_id
    from own_items
    left join {{ ref('int_stripe__item_periods') }} as lines on
        lines.subscription_item_id = own_items.subscription_item_id
        and lines.period_start_at = own_items.counts_from
        and lines.price_id = own_items.price_id
        and coalesce(lines.quantity, 1) = coalesce(own_items.quantity, 1)
    union all
    select
        own_items.subscription_item_id as subscription_item_id,
        own_items.subscription_id as subscription_id,
        own_items.begins_at as valid_from,
        least(own_items.counts_from, coalesce(firsts.first_period_start_at, own_items.counts_from)) as valid_to,
        own_items.quantity as quantity,
        {{ price_columns('own_items') }},
        own_items.item_discounts as item_discounts,
        'assumed' as basis,
        cast(null as {{ type_text() }}) as line_item_id
    from own_items
    left join (
        select subscription_item_id, first_period_start_at
        from {{ ref('int_stripe__item_periods') }}
        where period_start_at = first_period_start_at
    ) as firsts on firsts.subscription_item_id = own_items.subscription_item_id
    where own_items.begins_at < least(own_items.counts_from, coalesce(firsts.first_period_start_at, own_items.counts_from))
),

{#- The status of a subscription before its first change. #}
status_spans as (
    select
        bases.subscription_id as subscription_id,
        bases.customer_id as customer_id,
        bases.canceled_at as canceled_at,
        bases.collection_pause_behavior as collection_pause_behavior,
        bases.subscription_discounts as subscription_discounts,
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
        status_spans.customer_id as customer_id,
        status_spans.status as status,
        status_spans.canceled_at as canceled_at,
        status_spans.collection_pause_behavior as collection_pause_behavior,
        status_spans.subscription_discounts as subscription_discounts,
        greatest(covered.valid_from, status_spans.valid_from) as part_from,
        least(covered.valid_to, status_spans.valid_to) as part_to
    from covered
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
