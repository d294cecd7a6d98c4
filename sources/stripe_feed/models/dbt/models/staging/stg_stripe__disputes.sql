select
    id as dispute_id,
    account_id,
    livemode as is_live,
    charge as charge_id,
    payment_intent as payment_intent_id,
    {{ utc('created') }} as created_at,
    status,
    reason,
    currency,
    amount,
    {{ epoch(json_text('evidence_details', 'due_by')) }} as evidence_due_at,
    balance_transactions,
    metadata
from {{ source('stripe', 'disputes') }}
