"""Triggers on models: rows that enter, leave or change, found by comparing with the previous rows."""
