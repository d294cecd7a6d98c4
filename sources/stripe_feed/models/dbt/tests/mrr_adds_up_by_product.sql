{# The MRR of the products at the end of a month is the MRR of the customers. #}
with products as (
    select months.month as month, items.currency as currency, items.product_id as product_id, {{ total('items.mrr') }} as mrr
    from {{ ref('months') }} as months
    inner join {{ ref('int_stripe__net_mrr') }} as items on {{ in_force('items', 'months.closes_at') }}
    group by months.month, items.currency, items.product_id
),

by_month as (
    select month, currency, {{ total('mrr') }} as mrr from products group by month, currency
)

select summary.currency as currency, summary.month as month, summary.closing_mrr as closing_mrr, by_month.mrr as product_mrr
from {{ ref('mrr_summary') }} as summary
left join by_month on by_month.month = summary.month and by_month.currency = summary.currency
where summary.closing_mrr <> coalesce(by_month.mrr, 0)
