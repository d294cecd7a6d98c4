"""Find and repair what is wrong in the copy."""
