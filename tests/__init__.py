"""The tests: folders mirror those of the package; helpers are in `support`."""
