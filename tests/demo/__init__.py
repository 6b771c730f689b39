"""The demo: without a browser, under four workers, and in chromium."""
