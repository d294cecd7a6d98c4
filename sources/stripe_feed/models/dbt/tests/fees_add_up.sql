{# The fees of the months are those of the balance transactions. #}
select balances.currency as currency, balances.fee as fee, months.fee as fee_of_months
from (
    select currency, {{ total('fee') }} as fee
    from {{ ref('stg_stripe__balance_transactions') }}
    group by currency
) as balances
left join (
    select currency, {{ total('fee') }} as fee
    from {{ ref('fees_by_month') }}
    group by currency
) as months on months.currency = balances.currency
where balances.fee <> coalesce(months.fee, 0)
