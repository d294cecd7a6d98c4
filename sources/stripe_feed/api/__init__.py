"""Stripe over HTTP: the client, its rate limits, credentials and errors."""
