"""The account's objects and events."""
