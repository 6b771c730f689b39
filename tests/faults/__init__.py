"""Faults: real workers, things that break, clients that note what they saw, checkers that judge it."""
