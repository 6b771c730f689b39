"""Redis as a store, on one connection a thread; the Lua scripts stand beside it.

It may import from `stores`, `values` and `system`. Only `RedisStore` is public.
"""

from .store import RedisStore

__all__ = ["RedisStore"]
