"""The conformance suite: what every store must do, for the authors of stores.

It may import from `proxies` and what is below it.

It needs pytest and hypothesis. Give it a fixture ``open_store``, which is a callable that gives a new
store object over the same data at each call, so that two of them stand for two workers::

    import pytest
    from flask_globalstate.testing import DictSuite, StoreSuite
    from my_package import MyStore

    class TestMyStore(StoreSuite, DictSuite):
        @pytest.fixture
        def open_store(self, tmp_path):
            return lambda: MyStore(path=tmp_path)

`StoreSuite` holds the laws of the store contract (`flask_globalstate.stores.base.Store`), `DictSuite`
those of the proxies over it, each compared with the plain object that the proxy replaces, and `NestedSuite`
those of values inside of values, edits and transactions. What a store lacks is declared by the class of its
tests, as in ``lacks = {"atomic"}``, and is not asked of it; pytest tells how many laws it has deselected for
that.

`DictSuite` alone is for classes that are no `Store`: a dict-like one is given as
``DictLikeStore(MyClass, factory)``, a `DurableStore` as ``ReloadedStore(MyClass)``. ``docs/testing.rst`` has
a complete example.
"""

from .dict_suite import DictSuite
from .nested_suite import NestedSuite
from .store_suite import StoreSuite

__all__ = ["DictSuite", "NestedSuite", "StoreSuite"]
