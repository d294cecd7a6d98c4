"""JSON bytes -> Arrow tables with declared columns."""
