"""Read `/v1/events` and derive what happened, in order."""
