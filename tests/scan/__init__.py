"""Finding the globals that functions change."""
