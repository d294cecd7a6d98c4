{# Opening, movements and closing of each currency and month agree, and each month opens as the one before closed. #}
with months as (
    select
        summary.*,
        coalesce(lag({{ nullable('summary.closing_mrr') }}) over (partition by summary.currency order by summary.month), 0) as closed_before
    from {{ ref('mrr_summary') }} as summary
)

select currency, month, opening_mrr, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, closing_mrr, closed_before
from months
where
    opening_mrr + new_mrr + reactivation_mrr + expansion_mrr - contraction_mrr - churn_mrr <> closing_mrr
    or opening_mrr <> closed_before
    or opening_subscribers + new_subscribers + reactivated_subscribers - churned_subscribers <> closing_subscribers
