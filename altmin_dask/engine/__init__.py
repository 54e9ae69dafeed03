"""Dask: one step as a graph, the training loop, inference."""
