"""The command line: `flask globalstate ...` and `python -m flask_globalstate ...`, which have the same verbs.

`group.py` names the verbs and where each lives; `target.py` finds the store that a verb is about; a verb, or
two of one concern, is a file. The package may import everything but the doors and the dashboard.
"""
