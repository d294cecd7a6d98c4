{# The steps of tiered prices, if `prices.tiers` is loaded: units above `units_below`, up to `up_to`. #}
with tiered as (
    select price_id, tiers from {{ ref('stg_stripe__prices') }} where billing_scheme = 'tiered' and tiers is not null
),

steps as (
    select price_id, {{ json_fields('element', {
        'up_to': 'up_to', 'unit_amount': 'unit_amount_decimal', 'flat_amount': 'flat_amount_decimal'
    }) }}
    from {{ json_rows('tiered', 'tiers', '', ['price_id']) }} as elements
),

typed as (
    select
        price_id,
        {{ integer_of('up_to') }} as up_to,
        coalesce({{ amount_of('unit_amount') }}, 0) as unit_amount,
        coalesce({{ amount_of('flat_amount') }}, 0) as flat_amount
    from steps
)

select
    price_id,
    coalesce(lag({{ nullable('up_to') }}) over (partition by price_id order by coalesce(up_to, 9223372036854775807)), 0) as units_below,
    up_to,
    unit_amount,
    flat_amount
from typed
