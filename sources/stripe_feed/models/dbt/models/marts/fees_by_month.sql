with fees as (
    select
        transactions.balance_transaction_id as balance_transaction_id,
        {{ month_of('transactions.created_at') }} as month,
        transactions.currency as currency,
        transactions.reporting_category as reporting_category,
        transactions.amount as amount,
        transactions.fee as fee
    from {{ ref('stg_stripe__balance_transactions') }} as transactions
),

detailed as (
    select
        balance_transaction_id,
        coalesce({{ json_text('element', 'type') }}, 'stripe_fee') as fee_type,
        {{ integer_of(json_text('element', 'amount')) }} as fee
    from {{ json_rows(ref('stg_stripe__balance_transactions'), 'fee_details', '', ['balance_transaction_id']) }} as elements
),

by_type as (
    select
        fees.month as month,
        fees.currency as currency,
        fees.reporting_category as reporting_category,
        detailed.fee_type as fee_type,
        detailed.fee as fee,
        fees.balance_transaction_id as balance_transaction_id
    from fees
    inner join detailed on fees.balance_transaction_id = detailed.balance_transaction_id
    union all
    select
        fees.month as month,
        fees.currency as currency,
        fees.reporting_category as reporting_category,
        'unknown' as fee_type,
        fees.fee - coalesce(detailed.fee, 0) as fee,
        fees.balance_transaction_id as balance_transaction_id
    from fees
    left join (
        select
            balance_transaction_id,
            sum(fee) as fee
        from detailed
        group by balance_transaction_id
    ) as detailed on fees.balance_transaction_id = detailed.balance_transaction_id
    where fees.fee <> coalesce(detailed.fee, 0)
),

summed as (
    select
        month,
        currency,
        reporting_category,
        fee_type,
        count(distinct balance_transaction_id) as transactions,
        cast(sum(fee) as {{ type_bigint() }}) as fee
    from by_type
    group by month, currency, reporting_category, fee_type
)

select
    month,
    currency,
    reporting_category,
    fee_type,
    transactions,
    fee,
    {{ major('fee', 'currency') }} as fee_major
from summed
