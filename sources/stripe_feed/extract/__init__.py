"""Stripe to destination: pages are read, shaped into Arrow tables and handed to dlt."""
