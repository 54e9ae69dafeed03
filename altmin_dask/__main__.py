"""`python -m altmin_dask` is the command line."""

from altmin_dask.cli import main

if __name__ == "__main__":
    main()
