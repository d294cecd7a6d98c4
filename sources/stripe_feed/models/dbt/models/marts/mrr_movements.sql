with paid as (
    select
        customer_id, currency, month_number, mrr, basis, is_estimated,
        lag({{ nullable('month_number') }}) over (partition by customer_id, currency order by month_number) as previous_number,
        lag({{ nullable('mrr') }}) over (partition by customer_id, currency order by month_number) as previous_mrr,
        lead({{ nullable('month_number') }}) over (partition by customer_id, currency order by month_number) as next_number
    from {{ ref('mrr_monthly_customer') }}
    where mrr > 0
),

ends as (
    select
        customer_id, currency, month_number, basis, is_estimated,
        case when previous_number = month_number - 1 then previous_mrr else 0 end as opening_mrr,
        mrr as closing_mrr,
        previous_number is not null as was_subscriber
    from paid
    union all
    select
        customer_id, currency, month_number + 1 as month_number, basis, is_estimated,
        mrr as opening_mrr,
        cast(0 as {{ type_bigint() }}) as closing_mrr,
        true as was_subscriber
    from paid
    where next_number is null or next_number > month_number + 1
),

movements as (
    select
        ends.*,
        case
            when opening_mrr = 0 and was_subscriber then 'reactivation'
            when opening_mrr = 0 then 'new'
            when closing_mrr = 0 then 'churn'
            when closing_mrr > opening_mrr then 'expansion'
            else 'contraction'
        end as kind
    from ends
    where opening_mrr <> closing_mrr
),

{#- A customer who leaves in one currency and arrives in another. #}
switches as (
    select customer_id, month_number
    from movements
    where kind in ('new', 'reactivation', 'churn')
    group by customer_id, month_number
    having min(case when kind = 'churn' then 0 else 1 end) = 0 and max(case when kind = 'churn' then 0 else 1 end) = 1
)

select
    movements.customer_id as customer_id,
    movements.currency as currency,
    months.month as month,
    months.month_number as month_number,
    movements.kind as kind,
    movements.opening_mrr as opening_mrr,
    movements.closing_mrr as closing_mrr,
    movements.closing_mrr - movements.opening_mrr as amount,
    {{ major('movements.closing_mrr - movements.opening_mrr', 'movements.currency') }} as amount_major,
    switches.customer_id is not null and movements.kind in ('new', 'reactivation', 'churn') as is_currency_switch,
    movements.basis as basis,
    movements.is_estimated as is_estimated,
    months.is_complete as is_complete,
    months.as_of as as_of
from movements
inner join {{ ref('months') }} as months on months.month_number = movements.month_number
left join switches on switches.customer_id = movements.customer_id and switches.month_number = movements.month_number
