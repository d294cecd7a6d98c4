"""Destination to other tools: a log of completed changes beside the destination, and named consumers of it."""
