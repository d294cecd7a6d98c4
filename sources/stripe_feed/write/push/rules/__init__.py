"""What is special about pushing one kind of object."""
