"""Keys and values on their way into a store."""
