"""One store and its names: configured, bound, migrated, used in requests and transactions.

It may import every folder but `cli`, `adapters` and `dashboard`, and none of the doors.
"""
