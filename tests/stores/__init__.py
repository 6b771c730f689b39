"""The stores: the laws that all keep, and what is particular to each."""
