"""HTTP in and out: Stripe's webhooks, changes, health, metrics and a page."""
