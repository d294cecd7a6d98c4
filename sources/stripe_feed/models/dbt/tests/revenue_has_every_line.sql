{# Every line of an issued invoice is in the revenue of one month. #}
select months.currency as currency, months.line_items as line_items, lines.line_items as loaded_line_items
from (
    select currency, {{ total('line_items') }} as line_items
    from {{ ref('revenue_by_product') }}
    group by currency
) as months
full outer join (
    select lines.currency as currency, {{ row_count() }} as line_items
    from {{ ref('stg_stripe__invoice_line_items') }} as lines
    inner join {{ ref('stg_stripe__invoices') }} as invoices on invoices.invoice_id = lines.invoice_id
    where invoices.status in ('paid', 'open', 'uncollectible') and invoices.finalized_at is not null and not invoices.is_deleted
    group by lines.currency
) as lines on lines.currency = months.currency
where coalesce(months.line_items, 0) <> coalesce(lines.line_items, 0)
