{# A payout whose balance transactions are complete is their sum. #}
select payouts.payout_id as payout_id, payouts.currency as currency, payouts.amount as amount, payouts.net as net, payouts.difference as difference
from {{ ref('payout_reconciliation') }} as payouts
inner join {{ ref('stg_stripe__payouts') }} as raw_payouts on raw_payouts.payout_id = payouts.payout_id
where payouts.is_automatic and raw_payouts.reconciliation_status = 'completed' and payouts.difference <> 0
