"""What users hold in place of a plain object."""
