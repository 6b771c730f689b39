"""Lists, dicts and sets inside a stored value."""
