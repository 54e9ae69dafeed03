"""The training loop, its two algorithms, and what it needs to begin."""
