{# The lines of final invoices, typed: documents are parsed once for all models that read lines. #}
with discounted as (
    select
        line_item_id,
        sum({{ integer_of(json_text('element', 'amount')) }}) as discount_amount
    from {{ json_rows(ref('stg_stripe__invoice_line_items'), 'discount_amounts', '', ['line_item_id']) }} as discount_amounts
    group by line_item_id
),

inclusive as (
    select
        line_item_id,
        {{ integer_of(json_text('element', 'amount')) }} as amount
    from {{ json_rows(ref('stg_stripe__invoice_line_items'), 'taxes', '', ['line_item_id']) }} as taxes
    where {{ json_text('element', 'tax_behavior') }} = 'inclusive'
    union all
    select
        line_item_id,
        {{ integer_of(json_text('element', 'amount')) }} as amount
    from {{ json_rows(ref('stg_stripe__invoice_line_items'), 'tax_amounts', '', ['line_item_id']) }} as tax_amounts
    where {{ json_text('element', 'inclusive') }} = 'true'
),

taxed as (
    select
        line_item_id,
        sum(amount) as inclusive_tax
    from inclusive
    group by line_item_id
),

final_lines as (
    select
        lines.line_item_id as line_item_id,
        lines.invoice_id as invoice_id,
        invoices.customer_id as customer_id,
        invoices.status as status,
        invoices.finalized_at as finalized_at,
        lines.subscription_id as subscription_id,
        lines.subscription_item_id as subscription_item_id,
        lines.price_id as price_id,
        lines.product_id as product_id,
        lines.is_proration as is_proration,
        lines.currency as currency,
        lines.unit_amount as unit_amount,
        {{ whole('lines.quantity') }} as quantity,
        lines.amount as amount,
        lines.period_start_at as period_start_at,
        lines.period_end_at as period_end_at,
        {#- Whether the line tells what an item cost in a period. -#}
        lines.subscription_item_id is not null and lines.subscription_id is not null
            and not lines.is_proration and coalesce(lines.period_end_at > lines.period_start_at, false) as is_of_period
    from {{ ref('stg_stripe__invoice_line_items') }} as lines
    inner join {{ ref('stg_stripe__invoices') }} as invoices on lines.invoice_id = invoices.invoice_id
    where invoices.status in ('paid', 'open', 'uncollectible') and invoices.finalized_at is not null and not invoices.is_deleted
),

{#- Of the lines of an item that begin together the last one counts. -#}
followed as (
    select
        final_lines.*,
        lead({{ nullable('period_start_at') }}) over (
            partition by case when is_of_period then subscription_item_id else line_item_id end
            order by period_start_at, finalized_at, line_item_id
        ) as next_period_start_at,
        first_value(period_start_at) over (
            partition by case when is_of_period then subscription_item_id else line_item_id end
            order by period_start_at, finalized_at, line_item_id
        ) as first_period_start_at
    from final_lines
)

select
    followed.line_item_id as line_item_id,
    followed.invoice_id as invoice_id,
    followed.customer_id as customer_id,
    followed.status as status,
    followed.finalized_at as finalized_at,
    followed.subscription_id as subscription_id,
    followed.subscription_item_id as subscription_item_id,
    followed.price_id as price_id,
    followed.product_id as product_id,
    followed.is_proration as is_proration,
    followed.currency as currency,
    followed.unit_amount as unit_amount,
    followed.quantity as quantity,
    followed.amount as amount,
    cast(coalesce(discounted.discount_amount, 0) as {{ type_bigint() }}) as discount_amount,
    cast(coalesce(taxed.inclusive_tax, 0) as {{ type_bigint() }}) as inclusive_tax,
    followed.period_start_at as period_start_at,
    followed.period_end_at as period_end_at,
    followed.is_of_period and (followed.next_period_start_at is null or followed.next_period_start_at > followed.period_start_at) as is_item_period,
    followed.next_period_start_at as next_period_start_at,
    followed.first_period_start_at as first_period_start_at
from followed
left join discounted on followed.line_item_id = discounted.line_item_id
left join taxed on followed.line_item_id = taxed.line_item_id
