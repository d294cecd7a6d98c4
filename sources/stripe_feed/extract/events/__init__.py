"""`/v1/events` -> what happened, in order."""
