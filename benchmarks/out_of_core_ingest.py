"""Ingest of a csv ten times as large as the memory that `altmin plan` says it takes, shuffling included: the peak.

A process of its own, as a user would start it, ingests the file; the kernel keeps the most that was resident in it,
libraries included, and the processes that it starts are watched, too. Lines are made once, and the file is these again
and again: what ingest holds does not depend on what they say. `out_of_core.py --ingest 10` prints it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from ingesting import write

from altmin_dask.config import Pipeline
from altmin_dask.execution.resources import Resources
from altmin_dask.planning.plan import make_plan

LINES_MEGABYTES = 40.0
WATCH_SECONDS = 0.1
ROOM = 1.2
"""By what more is planned for many lines than for few, whose chunks, and what is shuffled of them, are smaller."""
CHILD = """
import sys, warnings
from altmin_dask.cli import main
warnings.simplefilter("ignore")
sys.argv = ["altmin", "ingest", *sys.argv[1:]]
try:
    main()
finally:
    fields = open("/proc/self/status").read().splitlines()
    print(next(line.split()[1] for line in fields if line.startswith("VmHWM")), file=sys.stderr)
"""


def write_again(lines: Path, file: Path, size: float) -> None:
    """Write a csv of at least so many bytes of the lines of another, whole."""
    names, rows = lines.read_bytes().split(b"\n", 1)
    with file.open("wb") as out:
        out.write(names + b"\n")
        while out.tell() < size:
            out.write(rows)


def planned(file: Path) -> int:
    """Bytes that `altmin plan` says ingest of a csv takes, of the whole process."""
    made = Pipeline.model_validate(
        {"data": {"train": str(file)}, "network": {"kind": "classifier", "hidden_layer_sizes": [16]}}
    )
    return make_plan(made, None, Resources(1, 1, None, True)).ingest_memory


def ingested(file: Path, store: Path) -> tuple[int, float]:
    """The peak in bytes of all processes of an ingest, and CPU seconds."""
    words = [sys.executable, "-c", CHILD, str(file), str(store)]
    beside, seconds = 0, 0.0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        started = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                others = started.children(recursive=True)
                beside = max(beside, sum(other.memory_info().rss for other in others))
                seconds = sum(started.cpu_times()[:2])
            except psutil.NoSuchProcess:
                break
            time.sleep(WATCH_SECONDS)
        assert process.stderr is not None
        told = process.stderr.read()
        if process.wait():
            raise RuntimeError(told)
    return int(told.split()[-1]) * 1024 + beside, seconds


def measure_ingest(folder: Path, times: float) -> dict[str, Any]:
    """Plan and ingest a csv so many times as large as the plan."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        lines, file, store = Path(name, "lines.csv"), Path(name, "large.csv"), Path(name, "large.zarr")
        write(lines, LINES_MEGABYTES)
        limit = planned(lines)
        write_again(lines, file, ROOM * times * limit)
        plan = planned(file)
        peak, seconds = ingested(file, store)
        size = file.stat().st_size
    return {
        "csv_bytes": size,
        "planned": plan,
        "peak": peak,
        "times": size / plan,
        "cpu_seconds": seconds,
        "peak_share": peak / plan,
    }


def told(found: dict[str, Any]) -> str:
    """What was measured, in a line."""
    return (
        f"{found['csv_bytes'] / 2**20:.0f} MiB of csv, {found['times']:.1f} × the {found['planned'] / 2**20:.0f} MiB "
        f"that ingest is planned to take; its peak {found['peak'] / 2**20:.0f} MiB ({found['peak_share']:.0%}), "
        f"{found['csv_bytes'] / found['cpu_seconds'] / 1e6:.0f} MB/s of CPU"
    )
