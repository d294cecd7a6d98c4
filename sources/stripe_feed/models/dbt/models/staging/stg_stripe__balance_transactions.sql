select
    id as balance_transaction_id,
    account_id,
    {{ utc('created') }} as created_at,
    {{ utc('available_on') }} as available_at,
    type,
    reporting_category,
    status,
    currency,
    amount,
    fee,
    net,
    source as source_id,
    fee_details,
    description
from {{ source('stripe', 'balance_transactions') }}
