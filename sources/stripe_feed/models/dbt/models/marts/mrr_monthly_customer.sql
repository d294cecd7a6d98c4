select
    items.customer_id as customer_id,
    items.currency as currency,
    months.month as month,
    months.month_number as month_number,
    months.closes_at as closes_at,
    months.is_complete as is_complete,
    {{ total('items.mrr') }} as mrr,
    {{ major(total('items.mrr'), 'items.currency') }} as mrr_major,
    {{ total('items.gross_mrr') }} as gross_mrr,
    {{ total('items.discount') }} as discount,
    cast(count(distinct items.subscription_id) as {{ type_bigint() }}) as subscription_count,
    cast(count(distinct case when items.mrr > 0 then items.subscription_id end) as {{ type_bigint() }}) as paid_subscription_count,
    {{ weakest_basis('items.basis') }} as basis,
    max(case when items.is_estimated then 1 else 0 end) = 1 as is_estimated,
    months.as_of as as_of
from {{ ref('months') }} as months
inner join {{ ref('int_stripe__net_mrr') }} as items on {{ in_force('items', 'months.closes_at') }}
group by items.customer_id, items.currency, months.month, months.month_number, months.closes_at, months.is_complete, months.as_of
