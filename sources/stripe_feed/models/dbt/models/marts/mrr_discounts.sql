{%- set steps = range(1, var('stacked_discounts') + 1) %}

with cells as (
    select * from {{ ref('int_stripe__discountable_mrr') }}
),

lists as (
    select subscription_item_id, valid_from, 'item' as level, {{ as_json('item_discounts') }} as discount_ids
    from cells
    where item_discounts <> '[]'
    union all
    select subscription_item_id, valid_from, level, {{ as_json('subscription_discounts') }} as discount_ids
    from cells
    where subscription_discounts <> '[]'
),

listed as (
    select subscription_item_id, valid_from, level, {{ json_text('element', '') }} as discount_id
    from {{ json_rows('lists', 'discount_ids', '', ['subscription_item_id', 'valid_from', 'level']) }} as elements
),

{#- What applies to an item in a segment. #}
applicable as (
    select
        cells.subscription_item_id as subscription_item_id,
        cells.valid_from as valid_from,
        listed.level as level,
        case when listed.level = 'item' then 'item' else 'subscription' end as phase,
        discounts.discount_id as discount_id,
        discounts.coupon_id as coupon_id,
        discounts.duration as duration,
        discounts.percent_off as percent_off,
        case when discounts.percent_off is null then discounts.amount_off end as amount_off,
        dense_rank() over (
            partition by case when listed.level = 'item' then cells.subscription_item_id else cells.subscription_id end, cells.valid_from, case when listed.level = 'item' then 'item' else 'subscription' end
            order by {{ position_in("concat('\"', discounts.discount_id, '\"')", "case when listed.level = 'item' then cells.item_discounts else cells.subscription_discounts end") }}, discounts.discount_id
        ) as step
    from cells
    inner join listed on listed.subscription_item_id = cells.subscription_item_id and listed.valid_from = cells.valid_from
    inner join {{ ref('int_stripe__discounts') }} as discounts on discounts.discount_id = listed.discount_id
    where
        discounts.starts_at <= cells.valid_from
        and (discounts.ends_at is null or discounts.ends_at > cells.valid_from)
        and (discounts.percent_off is not null or discounts.currency = cells.currency)
        and (discounts.product_ids is null or discounts.product_ids like concat('%"', cells.product_id, '"%'))
        {%- if var('discounts') == 'forever' %}
        and discounts.duration = 'forever'
        {%- elif var('discounts') == 'recurring' %}
        and discounts.duration in ('forever', 'repeating')
        {%- elif var('discounts') == 'none' %}
        and 1 = 0
        {%- endif %}
),

after_item_0 as (
    select subscription_item_id, subscription_id, valid_from, billing_interval, billing_interval_count, mrr as mrr_left from cells
),
{%- set previous = namespace(name='after_item_0') %}
{%- for phase in ['item', 'subscription'] %}
{%- for step in steps %}

{{ phase }}_{{ step }} as (
    select
        subscription_item_id, valid_from, level, discount_id, coupon_id, duration, position, mrr_left,
        case
            when percent_off is not null then {{ percent_of('mrr_left', 'percent_off') }}
            {#- Shares of one amount: rounded where the running sum stands, so that they add up. #}
            when mrr_total = 0 then 0
            else {{ share('capped_off', 'mrr_up_to_here', 'mrr_total') }} - {{ share('capped_off', 'mrr_up_to_here - mrr_left', 'mrr_total') }}
        end as discount
    from (
        select
            shares.*,
            case when {{ monthly('shares.amount_off') }} < shares.mrr_total then {{ monthly('shares.amount_off') }} else shares.mrr_total end as capped_off
        from (
            select
                before.subscription_item_id as subscription_item_id,
                before.valid_from as valid_from,
                before.billing_interval as billing_interval,
                before.billing_interval_count as billing_interval_count,
                before.mrr_left as mrr_left,
                applicable.level as level,
                applicable.discount_id as discount_id,
                applicable.coupon_id as coupon_id,
                applicable.duration as duration,
                applicable.percent_off as percent_off,
                applicable.amount_off as amount_off,
                {{ step + (steps | length if phase == 'subscription' else 0) }} as position,
                {%- set owner = 'before.subscription_item_id' if phase == 'item' else 'before.subscription_id' %}
                cast(sum(before.mrr_left) over (partition by {{ owner }}, before.valid_from, applicable.discount_id) as {{ type_bigint() }}) as mrr_total,
                cast(sum(before.mrr_left) over (
                    partition by {{ owner }}, before.valid_from, applicable.discount_id
                    order by before.subscription_item_id
                    rows between unbounded preceding and current row
                ) as {{ type_bigint() }}) as mrr_up_to_here
            from {{ previous.name }} as before
            inner join applicable on
                applicable.subscription_item_id = before.subscription_item_id
                and applicable.valid_from = before.valid_from
                and applicable.phase = '{{ phase }}'
                and applicable.step = {{ step }}
        ) as shares
    ) as capped
),

after_{{ phase }}_{{ step }} as (
    select
        before.subscription_item_id as subscription_item_id,
        before.subscription_id as subscription_id,
        before.valid_from as valid_from,
        before.billing_interval as billing_interval,
        before.billing_interval_count as billing_interval_count,
        before.mrr_left - coalesce(taken.discount, 0) as mrr_left
    from {{ previous.name }} as before
    left join {{ phase }}_{{ step }} as taken on taken.subscription_item_id = before.subscription_item_id and taken.valid_from = before.valid_from
),
{%- set previous.name = 'after_' ~ phase ~ '_' ~ step %}
{%- endfor %}
{%- endfor %}

taken as (
    {%- for phase in ['item', 'subscription'] %}
    {%- for step in steps %}
    select * from {{ phase }}_{{ step }}
    {%- if not (loop.last and phase == 'subscription') %}
    union all
    {%- endif %}
    {%- endfor %}
    {%- endfor %}
)

select
    cells.subscription_item_id as subscription_item_id,
    cells.subscription_id as subscription_id,
    cells.customer_id as customer_id,
    cells.currency as currency,
    cells.valid_from as valid_from,
    cells.valid_to as valid_to,
    taken.position as position,
    taken.level as level,
    taken.discount_id as discount_id,
    taken.coupon_id as coupon_id,
    taken.duration as duration,
    taken.mrr_left as mrr_before,
    cast(taken.discount as {{ type_bigint() }}) as discount,
    {{ major('taken.discount', 'cells.currency') }} as discount_major,
    cast(taken.mrr_left - taken.discount as {{ type_bigint() }}) as mrr_after,
    cells.basis as basis
from taken
inner join cells on cells.subscription_item_id = taken.subscription_item_id and cells.valid_from = taken.valid_from
