"""A one-page Flask app whose module-level globals are right in every gunicorn worker."""
