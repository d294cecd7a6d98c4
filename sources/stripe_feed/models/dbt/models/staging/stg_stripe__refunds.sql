select
    id as refund_id,
    account_id,
    charge as charge_id,
    payment_intent as payment_intent_id,
    balance_transaction as balance_transaction_id,
    {{ utc('created') }} as created_at,
    status,
    reason,
    failure_reason,
    currency,
    amount,
    metadata
from {{ source('stripe', 'refunds') }}
