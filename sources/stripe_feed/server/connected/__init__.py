"""One process that keeps the copies of all connected accounts fresh."""
