"""Writing to Stripe: actions on one object at a time."""
