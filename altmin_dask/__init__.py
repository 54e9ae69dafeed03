"""Neural networks trained by alternating minimisation, out of core, on Dask and zarr."""
