"""What users hold in place of a plain object: one file a type.

It may import from `tracking`, `replicas`, `stores`, `values` and `system`.
"""
