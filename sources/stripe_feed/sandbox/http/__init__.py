"""Stripe's endpoints over HTTP."""
