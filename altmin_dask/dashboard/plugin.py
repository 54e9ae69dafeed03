"""The page in a scheduler's own dashboard: listens to runs, remembers them, and serves the page."""

from __future__ import annotations

import logging
import sys
from functools import partial
from typing import Any

import cloudpickle
from distributed import Client
from distributed.diagnostics.plugin import SchedulerPlugin

from altmin_dask import format
from altmin_dask.dashboard import (
    axes,
    board,
    curves,
    differences,
    listing,
    page,
    panels,
    quality,
    theme,
    workers,
)
from altmin_dask.dashboard.board import Board, by_activity
from altmin_dask.dashboard.page import Cluster, document
from altmin_dask.training import progress, record

PAGE = "altmin"
CLIENT = "altmin_client"
"""What fine performance metrics call the process that trains."""
KEPT_NOTES = 20
"""Of what was submitted, in a span."""
_log = logging.getLogger("distributed.scheduler")


class RunBoard(SchedulerPlugin):
    """Keeps a `Board` on the scheduler, and adds the page to its dashboard if there is one."""

    name = "altmin-dashboard"
    idempotent = True

    def __init__(self) -> None:
        self.board = Board()
        self.cluster: SchedulerCluster | None = None

    async def start(self, scheduler: Any) -> None:
        """Add the page; without bokeh, or a dashboard, only remember."""
        if self.cluster is not None:  # --preload calls it twice
            return
        self.cluster = SchedulerCluster(scheduler)
        scheduler.handlers["altmin_tell"] = self.tell
        if _pages(scheduler) is None:
            return
        try:
            _add_page(scheduler, self.board, self.cluster)
        except Exception:  # a dashboard that cannot be had must not stop a scheduler
            _log.warning("the page /%s could not be added to the dashboard", PAGE, exc_info=True)

    def tell(self, message: dict[str, Any]) -> dict[str, Any]:
        """Take in what a run says; the answer is what the workers are at.

        Not an event: the scheduler would keep the last thousand of these.
        """
        assert self.cluster is not None
        self._account(message)
        self.board.apply(message)
        self.cluster.fold(message["span"])
        return {
            "seconds": self.cluster.seconds(message["span"]),
            "memory": self.cluster.memory(),
            "threads": sum(worker.nthreads for worker in self.cluster.scheduler.workers.values()),
        }

    def remove_client(self, scheduler: Any, client: str) -> None:
        """A client is gone, whether it said so or not."""
        self.board.lost(client)

    def _account(self, message: dict[str, Any]) -> None:
        """Add what the process that trains spent its time with to Dask's fine performance metrics."""
        assert self.cluster is not None
        known = self.board.runs.get(message["run"])
        if known is None or message["kind"] != "progress":
            return
        metrics = self.cluster.scheduler.cumulative_worker_metrics
        for name, seconds in message["client_seconds"].items():
            key = "execute", CLIENT, name, "seconds"
            metrics[key] += max(0.0, seconds - known.client_seconds.get(name, 0.0))


def _add_page(scheduler: Any, board: Board, cluster: SchedulerCluster) -> None:
    from distributed.dashboard.core import BokehApplication
    from distributed.dashboard.scheduler import template_variables
    from tornado.ioloop import IOLoop

    prefix = _pages(scheduler).prefix
    variables = template_variables(scheduler)
    if PAGE not in variables["pages"]:  # all pages share the list: the link appears on each of them
        variables["pages"].append(PAGE)
    application = BokehApplication(
        {f"/{PAGE}": partial(_page, board, cluster)}, scheduler, prefix=prefix, template_variables=variables
    )
    scheduler.http_application.add_application(application)
    application.initialize(IOLoop.current())
    application.start()


def _page(board: Board, cluster: Cluster, scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    from distributed.dashboard.components.scheduler import env

    document(doc, board, cluster, env.get_template("base.html"), extra)


class SchedulerCluster:
    """What a scheduler knows of its workers."""

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def memory(self) -> list[tuple[str, float, float]]:
        """Name, bytes in use and limit of every worker."""
        return [
            (str(worker.name), float(worker.metrics.get("memory", 0)), float(worker.memory_limit or 0))
            for worker in self.scheduler.workers.values()
        ]

    def seconds(self, span: str) -> dict[str, float]:
        """What the workers spent their time with on the tasks of a run."""
        spans = self.scheduler.extensions.get("spans")
        parts: list[dict[str, float]] = []
        for found in spans.spans_search_by_name.get((span,), ()) if spans else ():
            for part in found.traverse_spans():
                parts += (
                    {str(key[-2]): float(value)}
                    for key, value in part._cumulative_worker_metrics.items()
                    if key[0] == "execute" and key[-1] == "seconds"
                )
        return by_activity(*parts)

    def fold(self, span: str) -> None:
        """Let what a run has done take no more memory the longer it goes on.

        Spans keep each group of tasks that ever ran under them, and every step has groups of its own: those that the
        scheduler has forgotten become one for each kind of task, which counts for all. So do notes of submissions.
        """
        spans = self.scheduler.extensions.get("spans")
        for found in spans.spans_search_by_name.get((span,), ()) if spans else ():
            for part in found.traverse_spans():
                forgotten: dict[str, Any] = {}
                for group in sorted(part.groups, key=lambda each: float(each.start or "inf")):
                    if self.scheduler.task_groups.get(group.name) is group:
                        continue
                    kept = forgotten.setdefault(group.prefix.name, group)
                    kept.dependencies = set()
                    if kept is not group:
                        _add(kept, group)
                        part.groups.remove(group)
                if part._metadata is not None:
                    del part._metadata["collections"][:-KEPT_NOTES]


def _add(kept: Any, group: Any) -> None:
    """Let one group of tasks count for another that is over."""
    kept.nbytes_total += group.nbytes_total
    kept._duration_us += group._duration_us
    kept._size += group._size
    for name in ("states", "_all_durations_us", "_types"):
        mine = getattr(kept, name)
        for key, count in getattr(group, name).items():
            mine[key] = mine.get(key, 0) + count
    kept.stop = max(kept.stop, group.stop)


def install(client: Client) -> str | None:
    """Bring the page to a client's scheduler, by value, as it may not have the package; the page's URL, if any."""
    shown = page, axes, curves, differences, listing, panels, quality, theme, workers
    modules = *shown, board, progress, record, format, sys.modules[__name__]
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        client.register_plugin(RunBoard())
        prefix = client.run_on_scheduler(_page_prefix)
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    link = client.dashboard_link
    if prefix is None or not link:
        return None
    base = link.removesuffix("/").removesuffix("/status").rstrip("/")
    prefix = prefix.strip("/")
    if prefix and not base.endswith(f"/{prefix}"):  # which the client does not know of
        base = f"{base}/{prefix}"
    return f"{base}/{PAGE}"


def _page_prefix(dask_scheduler: Any) -> str | None:
    """The prefix of all pages, None where there are none."""
    pages = _pages(dask_scheduler)
    return None if pages is None or f"/{PAGE}" not in pages.app_paths else str(pages.prefix)


def _pages(scheduler: Any) -> Any:
    """The Bokeh application that came last, Dask's own or ours; None where the dashboard is off."""
    found = [app for app in scheduler.http_application.applications if hasattr(app, "app_paths")]
    return found[-1] if found else None
