"""Random objects as Stripe sends them, one module per group of kinds."""
