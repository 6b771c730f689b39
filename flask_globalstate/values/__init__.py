"""Values and keys on their way into a store: encoded, signed, numbered.

It may import only `errors`.
"""
