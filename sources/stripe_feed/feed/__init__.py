"""The log of changes beside the destination, and its named consumers."""
