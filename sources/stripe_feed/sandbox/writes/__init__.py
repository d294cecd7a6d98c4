"""Execute writes as Stripe does: check, change objects, record events."""
