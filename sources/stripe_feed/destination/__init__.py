"""Where the copy lives: the dlt pipeline, its database, loads, locks and stored state."""
