"""Push a table into Stripe: every row becomes one object, and only what changed is sent."""
