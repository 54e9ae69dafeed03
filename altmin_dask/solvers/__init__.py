"""The method: z-update, statistics, W-update, schedules. NumPy and SciPy only: no Dask, no zarr, no files."""
