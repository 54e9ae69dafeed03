"""The page `/altmin` in the Dask dashboard, or on a server of its own.

`board` is what is known of runs, `page` draws it, `plugin` brings both into a scheduler (`dask scheduler --preload
altmin_dask.dashboard` does, too), `publisher` tells it of a run, `server` shows a run folder without a scheduler.
The page consists of `listing`, the runs as a table; `curves`, the data of lines, which `panels` draws on `axes`;
`workers`, their time and memory; `theme`, the colours.

All but `publisher` and `server` need nothing of the package but each other, records, progress and `format`: where
a scheduler cannot import them they are sent to it.
"""

from __future__ import annotations

from typing import Any


async def dask_setup(scheduler: Any) -> None:
    """Add the page to a scheduler that is started with ``--preload altmin_dask.dashboard``."""
    from altmin_dask.dashboard.plugin import RunBoard

    if RunBoard.name not in scheduler.plugins:
        board = RunBoard()
        scheduler.add_plugin(board)
        await board.start(scheduler)
