with happened as (
    select
        {{ month_of('created_at') }} as month,
        currency,
        'charge' as kind,
        status,
        amount_captured as amount
    from {{ ref('stg_stripe__charges') }}
    where status = 'succeeded'
    union all
    select
        {{ month_of('created_at') }} as month,
        currency,
        'refund' as kind,
        status,
        amount
    from {{ ref('stg_stripe__refunds') }}
    where coalesce(status, 'succeeded') not in ('failed', 'canceled')
    union all
    select
        {{ month_of('created_at') }} as month,
        currency,
        'dispute' as kind,
        status,
        amount
    from {{ ref('stg_stripe__disputes') }}
),

summed as (
    select
        month,
        currency,
        sum(case when kind = 'charge' then 1 else 0 end) as charges,
        sum(case when kind = 'charge' then amount else 0 end) as charged_amount,
        sum(case when kind = 'refund' then 1 else 0 end) as refunds,
        sum(case when kind = 'refund' then amount else 0 end) as refunded_amount,
        sum(case when kind = 'dispute' then 1 else 0 end) as disputes,
        sum(case when kind = 'dispute' then amount else 0 end) as disputed_amount,
        sum(case when kind = 'dispute' and status in ('won', 'warning_closed', 'prevented') then 1 else 0 end) as disputes_won,
        sum(case when kind = 'dispute' and status = 'lost' then 1 else 0 end) as disputes_lost,
        sum(case when kind = 'dispute' and status = 'lost' then amount else 0 end) as disputes_lost_amount
    from happened
    group by month, currency
)

select
    month,
    currency,
    cast(charges as {{ type_bigint() }}) as charges,
    cast(charged_amount as {{ type_bigint() }}) as charged_amount,
    cast(refunds as {{ type_bigint() }}) as refunds,
    cast(refunded_amount as {{ type_bigint() }}) as refunded_amount,
    {{ ratio('refunded_amount', 'charged_amount') }} as refund_rate,
    cast(disputes as {{ type_bigint() }}) as disputes,
    cast(disputed_amount as {{ type_bigint() }}) as disputed_amount,
    cast(disputes_won as {{ type_bigint() }}) as disputes_won,
    cast(disputes_lost as {{ type_bigint() }}) as disputes_lost,
    cast(disputes_lost_amount as {{ type_bigint() }}) as disputes_lost_amount,
    cast(disputes - disputes_won - disputes_lost as {{ type_bigint() }}) as disputes_open,
    {{ ratio('disputes', 'charges') }} as dispute_rate
from summed
