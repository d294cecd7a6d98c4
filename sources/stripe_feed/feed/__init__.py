"""The log of changes stored next to the destination, and its named consumers."""
