with parts as (
    select
        payout_id,
        count(*) as transactions,
        sum(case when reporting_category in ('charge', 'charge_failure', 'partial_capture_reversal') then amount else 0 end) as charges,
        sum(case when reporting_category in ('refund', 'refund_failure') then amount else 0 end) as refunds,
        sum(case when reporting_category in ('dispute', 'dispute_reversal') then amount else 0 end) as disputes,
        sum(amount) as gross,
        sum(fee) as fees,
        sum(net) as net
    from {{ ref('stg_stripe__payout_balance_transactions') }}
    where type <> 'payout'
    group by payout_id
),

sums as (
    select
        payouts.payout_id as payout_id,
        payouts.created_at as created_at,
        payouts.arrives_at as arrives_at,
        payouts.status as status,
        payouts.is_automatic as is_automatic,
        payouts.currency as currency,
        payouts.amount as amount,
        cast(coalesce(parts.transactions, 0) as {{ type_bigint() }}) as transactions,
        cast(coalesce(parts.charges, 0) as {{ type_bigint() }}) as charges,
        cast(coalesce(parts.refunds, 0) as {{ type_bigint() }}) as refunds,
        cast(coalesce(parts.disputes, 0) as {{ type_bigint() }}) as disputes,
        cast(coalesce(parts.gross - parts.charges - parts.refunds - parts.disputes, 0) as {{ type_bigint() }}) as other,
        cast(coalesce(parts.fees, 0) as {{ type_bigint() }}) as fees,
        cast(coalesce(parts.net, 0) as {{ type_bigint() }}) as net
    from {{ ref('stg_stripe__payouts') }} as payouts
    left join parts on parts.payout_id = payouts.payout_id
)

select
    payout_id,
    created_at,
    arrives_at,
    status,
    is_automatic,
    currency,
    amount,
    {{ major('amount', 'currency') }} as amount_major,
    transactions,
    charges,
    refunds,
    disputes,
    other,
    fees,
    net,
    amount - net as difference,
    case when is_automatic then amount = net end as is_reconciled
from sums
