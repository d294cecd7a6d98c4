"""dlt's DuckDB destination with a merge that reads the files of a package where they are."""
