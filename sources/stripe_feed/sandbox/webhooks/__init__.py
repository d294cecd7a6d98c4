"""Webhook endpoints, and the sending of events to them."""
