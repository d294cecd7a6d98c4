"""Webhook endpoints, and the sender of webhooks."""
