"""Rules on changes: read, evaluated, tested against history, run."""
