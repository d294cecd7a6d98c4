select
    id as balance_transaction_id,
    account_id,
    payout as payout_id,
    {{ utc('created') }} as created_at,
    type,
    reporting_category,
    currency,
    amount,
    fee,
    net,
    source as source_id
from {{ source('stripe', 'payout_balance_transactions') }}
