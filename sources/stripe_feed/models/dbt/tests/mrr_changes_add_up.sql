{# The changes of a customer lead to its MRR in the newest month. #}
with changed as (
    select customer_id, currency, {{ total('amount') }} as mrr
    from {{ ref('mrr_changes') }}
    where changed_at < (select max(closes_at) from {{ ref('months') }})
    group by customer_id, currency
),

monthly as (
    select customer_id, currency, mrr
    from {{ ref('mrr_monthly_customer') }}
    where month = (select max(month) from {{ ref('months') }})
)

select
    coalesce(changed.customer_id, monthly.customer_id) as customer_id,
    coalesce(changed.currency, monthly.currency) as currency,
    changed.mrr as changed_mrr,
    monthly.mrr as monthly_mrr
from changed
full outer join monthly on monthly.customer_id = changed.customer_id and monthly.currency = changed.currency
where coalesce(changed.mrr, 0) <> coalesce(monthly.mrr, 0)
