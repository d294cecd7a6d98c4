"""List endpoint -> pages, in parallel."""
