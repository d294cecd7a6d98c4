"""What all of Stripe's endpoints share: parameters, errors, idempotency, faults."""
