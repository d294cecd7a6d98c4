"""Made-up objects."""
