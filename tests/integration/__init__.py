"""Real processes: gunicorn, forks, kills, starts at the same moment."""
