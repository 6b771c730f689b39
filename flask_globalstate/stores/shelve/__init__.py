"""A store in files that `shelve.open` reads too: one SQLite file a name.

It may import from `stores`, `values` and `system`. Only `ShelveStore` is public.
"""

from .store import ShelveStore

__all__ = ["ShelveStore"]
