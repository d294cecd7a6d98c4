{# The lines of an invoice add up to its subtotal. Invoices whose lines are not loaded are left out. #}
select invoices.invoice_id as invoice_id, invoices.currency as currency, invoices.subtotal as subtotal, lines.amount as line_amount
from {{ ref('stg_stripe__invoices') }} as invoices
inner join (
    select invoice_id, {{ total('amount') }} as amount
    from {{ ref('stg_stripe__invoice_line_items') }}
    group by invoice_id
) as lines on lines.invoice_id = invoices.invoice_id
where invoices.subtotal <> lines.amount and not invoices.is_deleted
