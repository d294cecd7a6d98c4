"""Copies in a lake: Delta or Iceberg tables on files or object storage, through dlt's filesystem
destination.
"""
