"""Sharing the globals of modules that can't be edited."""
