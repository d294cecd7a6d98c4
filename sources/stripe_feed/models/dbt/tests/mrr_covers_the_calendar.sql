{# The summary has each month of the calendar from a currency's first on: a month without revenue is the month of the last churn. #}
select currencies.currency as currency, months.month as month
from (select currency, min(month) as first_month from {{ ref('mrr_summary') }} group by currency) as currencies
inner join {{ ref('months') }} as months on months.month >= currencies.first_month
left join {{ ref('mrr_summary') }} as summary on summary.currency = currencies.currency and summary.month = months.month
where summary.month is null
