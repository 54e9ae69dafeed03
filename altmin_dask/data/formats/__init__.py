"""Kinds of data that a user can name: a file each, which `altmin_dask.data.open.FORMATS` lists."""
