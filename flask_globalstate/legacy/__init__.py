"""Sharing the globals of modules that can't be edited.

It may import from `proxies` and what is below it; `state` offers it to users.
"""
