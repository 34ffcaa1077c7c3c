"""The pure part: objects and records in, topology and drawings out."""
