"""What Stripe's writes do: parameters checked, objects changed, events recorded."""
