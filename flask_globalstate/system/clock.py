"""The clock that ages are measured by."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

#: seconds since some moment of the past: never set back, and where the system has such a clock it goes on
#: while the machine is suspended, since others may write meanwhile
now: Callable[[], float] = functools.partial(
    time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)
