"""Objects → wanted records; wanted and present records → changes. No I/O."""
