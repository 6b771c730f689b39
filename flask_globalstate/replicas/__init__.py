"""One worker's copy of each name: kept fresh, read and written; and transactions over these copies.

It may import from `stores`, `values` and `system`.
"""
