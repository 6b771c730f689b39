"""A Redis server of our own, embedded in a directory: started once, supervised, joined by every worker.

It may import from `stores.redis` and what that may import. Only `RedisliteStore` is public.
`supervisor.py` is run by path and imports only the standard library.
"""

from .store import RedisliteStore

__all__ = ["RedisliteStore"]
