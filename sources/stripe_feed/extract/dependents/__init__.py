"""Resources that are found through the rows of others."""
