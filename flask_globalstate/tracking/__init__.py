"""Lists, dicts and sets inside a stored value, whose changes are commits.

It may import from `replicas`, `stores`, `values` and `system`.
"""
