"""No process may be left in the directory of a test here."""

from tests.support.fixtures import nothing_left_behind

__all__ = ["nothing_left_behind"]
