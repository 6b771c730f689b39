"""One worker's copy of each name, and transactions over these copies."""
