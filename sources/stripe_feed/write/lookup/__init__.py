"""Find the objects that an action is about."""
