"""The command line: `python -m flask_globalstate ...`.

It may import everything but the doors and the dashboard.
"""
