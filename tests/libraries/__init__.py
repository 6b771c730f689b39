"""What libraries make of shared globals, and of what was read from them: the table of the documentation."""
