with currencies as (
    select currency, min(month_number) as first_number
    from {{ ref('mrr_monthly_customer') }}
    group by currency
),

calendar as (
    select currencies.currency as currency, months.month as month, months.month_number as month_number, months.is_complete as is_complete, months.as_of as as_of
    from currencies
    inner join {{ ref('months') }} as months on months.month_number >= currencies.first_number
),

closings as (
    select
        currency, month_number,
        {{ total('mrr') }} as mrr,
        {{ total('case when mrr > 0 then 1 else 0 end') }} as subscribers,
        max(case basis when 'assumed' then 3 when 'invoice' then 2 else 1 end) as basis_rank,
        max(case when is_estimated then 1 else 0 end) as is_estimated
    from {{ ref('mrr_monthly_customer') }}
    group by currency, month_number
),

movements as (
    select
        currency, month_number
        {%- for kind in ['new', 'reactivation', 'expansion', 'contraction', 'churn'] %},
        {{ total("case when kind = '" ~ kind ~ "' then abs(amount) else 0 end") }} as {{ kind }}_mrr,
        {{ total("case when kind = '" ~ kind ~ "' then 1 else 0 end") }} as {{ kind }}_customers
        {%- endfor %}
    from {{ ref('mrr_movements') }}
    group by currency, month_number
),

months as (
    select
        calendar.currency as currency,
        calendar.month as month,
        calendar.month_number as month_number,
        calendar.is_complete as is_complete,
        calendar.as_of as as_of,
        coalesce(lag({{ nullable('closings.mrr') }}) over (partition by calendar.currency order by calendar.month_number), 0) as opening_mrr,
        coalesce(lag({{ nullable('closings.subscribers') }}) over (partition by calendar.currency order by calendar.month_number), 0) as opening_subscribers,
        {%- for kind in ['new', 'reactivation', 'expansion', 'contraction', 'churn'] %}
        coalesce(movements.{{ kind }}_mrr, 0) as {{ kind }}_mrr,
        coalesce(movements.{{ kind }}_customers, 0) as {{ kind }}_customers,
        {%- endfor %}
        coalesce(closings.mrr, 0) as closing_mrr,
        coalesce(closings.subscribers, 0) as closing_subscribers,
        case closings.basis_rank when 3 then 'assumed' when 2 then 'invoice' else 'observed' end as basis,
        coalesce(closings.is_estimated, 0) = 1 as is_estimated
    from calendar
    left join closings on closings.currency = calendar.currency and closings.month_number = calendar.month_number
    left join movements on movements.currency = calendar.currency and movements.month_number = calendar.month_number
)

select
    currency,
    month,
    is_complete,
    opening_mrr,
    new_mrr,
    reactivation_mrr,
    expansion_mrr,
    contraction_mrr,
    churn_mrr,
    closing_mrr,
    {{ major('closing_mrr', 'currency') }} as closing_mrr_major,
    12 * closing_mrr as arr,
    {{ major('12 * closing_mrr', 'currency') }} as arr_major,
    opening_subscribers,
    new_customers as new_subscribers,
    reactivation_customers as reactivated_subscribers,
    churn_customers as churned_subscribers,
    closing_subscribers,
    case when closing_subscribers > 0 then cast({{ rounded('closing_mrr', 'closing_subscribers') }} as {{ type_bigint() }}) end as arpa,
    {{ ratio('new_mrr + reactivation_mrr + expansion_mrr', 'contraction_mrr + churn_mrr') }} as quick_ratio,
    {{ ratio('contraction_mrr + churn_mrr', 'opening_mrr') }} as gross_mrr_churn_rate,
    {{ ratio('contraction_mrr + churn_mrr - expansion_mrr', 'opening_mrr') }} as net_mrr_churn_rate,
    {{ ratio('opening_mrr - contraction_mrr - churn_mrr', 'opening_mrr') }} as gross_revenue_retention,
    {{ ratio('opening_mrr + expansion_mrr - contraction_mrr - churn_mrr', 'opening_mrr') }} as net_revenue_retention,
    {{ ratio('churn_customers', 'opening_subscribers') }} as subscriber_churn_rate,
    basis,
    is_estimated,
    as_of
from months
