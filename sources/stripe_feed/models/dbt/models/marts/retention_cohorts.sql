with firsts as (
    select
        customer_id,
        currency,
        min(month) as cohort_month
    from {{ ref('mrr_monthly_customer') }}
    where mrr > 0
    group by customer_id, currency
),

members as (
    select
        firsts.customer_id as customer_id,
        firsts.currency as currency,
        firsts.cohort_month as cohort_month,
        starts.mrr as start_mrr
    from firsts
    inner join {{ ref('mrr_monthly_customer') }} as starts
        on firsts.customer_id = starts.customer_id and firsts.currency = starts.currency and firsts.cohort_month = starts.month
),

cohorts as (
    select
        cohort_month,
        currency,
        count(*) as cohort_customers,
        {{ total('start_mrr') }} as cohort_mrr
    from members
    group by cohort_month, currency
),

kept as (
    select
        members.cohort_month as cohort_month,
        members.currency as currency,
        monthly.month as month,
        count(*) as retained_customers,
        {{ total('case when monthly.mrr < members.start_mrr then monthly.mrr else members.start_mrr end') }} as retained_mrr,
        {{ total('monthly.mrr') }} as mrr
    from members
    inner join {{ ref('mrr_monthly_customer') }} as monthly
        on members.customer_id = monthly.customer_id and members.currency = monthly.currency and monthly.month >= members.cohort_month
    where monthly.mrr > 0
    group by members.cohort_month, members.currency, monthly.month
),

ages as (
    select
        cohorts.cohort_month as cohort_month,
        cohorts.currency as currency,
        cohorts.cohort_customers as cohort_customers,
        cohorts.cohort_mrr as cohort_mrr,
        months.month as month,
        months.is_complete as is_complete,
        row_number() over (partition by cohorts.cohort_month, cohorts.currency order by months.month) - 1 as age_months,
        case when months.is_complete then coalesce(kept.retained_customers, 0) end as retained_customers,
        case when months.is_complete then coalesce(kept.retained_mrr, 0) end as retained_mrr,
        case when months.is_complete then coalesce(kept.mrr, 0) end as mrr
    from cohorts
    inner join {{ ref('months') }} as months on cohorts.cohort_month <= months.month
    left join kept on cohorts.cohort_month = kept.cohort_month and cohorts.currency = kept.currency and months.month = kept.month
)

select
    cohort_month,
    currency,
    cast(age_months as {{ type_bigint() }}) as age_months,
    month,
    is_complete,
    cohort_customers,
    cohort_mrr,
    retained_customers,
    retained_mrr,
    mrr,
    {{ ratio('retained_customers', 'cohort_customers') }} as logo_retention,
    {{ ratio('retained_mrr', 'cohort_mrr') }} as gross_mrr_retention,
    {{ ratio('mrr', 'cohort_mrr') }} as net_mrr_retention
from ages
