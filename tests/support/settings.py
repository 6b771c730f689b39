"""Settings for the tests of the configuration."""

from __future__ import annotations

SECRET = "hunter2-of-these-settings"
