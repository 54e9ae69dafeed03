"""The command line, with its own clock logged to ALTMIN_CLOCK at every commit, and killed as `killers` says."""

from __future__ import annotations

import os
from pathlib import Path

import killers
from clocks import Logged

if __name__ == "__main__":
    assert killers.PHASES
    Logged(Path(os.environ["ALTMIN_CLOCK"]))
    from altmin_dask.cli import main

    main()
