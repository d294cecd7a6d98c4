{# Nobody is retained beyond the cohort, and no retained MRR exceeds the first one. #}
select cohort_month, currency, age_months, cohort_customers, retained_customers, cohort_mrr, retained_mrr
from {{ ref('retention_cohorts') }}
where
    retained_customers > cohort_customers
    or retained_mrr > cohort_mrr
    or (age_months = 0 and is_complete and (retained_customers <> cohort_customers or mrr <> cohort_mrr))
    or (is_complete and retained_customers is null)
