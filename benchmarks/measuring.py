"""What every figure needs besides itself: which machine, which commit, and whether anything else was running.

`machine()` says where and with what, `wait_for_quiet()` refuses to measure beside others, `refuse_dirty()` refuses
source that no commit has, `spread()` writes a median and its range.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from threadpoolctl import threadpool_info

HERE = Path(__file__).parent
ONE_THREAD = {
    f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR", "VECLIB_MAXIMUM")
}
"""Of the environment of a process that is to use one core."""
CHOSEN_KERNELS = "OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY"
"""Of the environment: what has libraries use other kernels than they would choose, which is half the speed at worst."""
PACKAGES = "altmin-dask", "numpy", "scipy", "dask", "distributed", "zarr", "torch", "scikit-learn"
SLACK = 0.3
"""Cores that the background of an idle machine may take."""


class BusyError(RuntimeError):
    """The machine is not free for a measurement."""


def machine(*libraries: str) -> dict[str, Any]:
    """Where and with what something is measured.

    Parameters
    ----------
    *libraries : str
        Modules that are imported first, so that the BLAS they bring is seen, such as ``"torch"``.

    Returns
    -------
    dict
        ``cpu``, ``cores``, ``python``, ``blas`` (a line each), ``versions`` (by package), ``commit``, ``dirty``.
    """
    import numpy  # its BLAS is loaded by it

    loaded = {name: import_module(name) for name in libraries}
    blas = [
        " ".join(str(info[key]) for key in ("internal_api", "version", "architecture") if info.get(key))
        + f" ({Path(info['filepath']).name}, {info['num_threads']} thread{'s' * (info['num_threads'] != 1)})"
        for info in threadpool_info()
        if info["user_api"] == "blas"
    ]
    if "torch" in loaded:
        blas.append("torch: " + _torch_blas(loaded["torch"]))
    blas.extend(f"{name}={os.environ[name]}" for name in CHOSEN_KERNELS if os.environ.get(name))
    versions = {}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    del numpy
    commit, dirty = source()
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "python": platform.python_version(),
        "blas": sorted(blas),
        "versions": versions,
        "commit": commit,
        "dirty": dirty,
    }


def _torch_blas(torch: Any) -> str:
    """What PyTorch was linked with, statically, where `threadpool_info` does not see it."""
    lines = [line.strip(" -") for line in torch.__config__.show().splitlines()]
    wanted = [line for line in lines if "MKL" in line or "CPU capability" in line]
    return "; ".join(line for line in wanted if not line.startswith("Build settings"))


def cpu_name() -> str:
    """As Linux tells it."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def source(folder: Path = HERE) -> tuple[str, bool]:
    """The commit that is checked out, and whether files differ from it; results do not count."""
    try:
        commit = _git(folder, "rev-parse", "--short=10", "HEAD")
        return commit, bool(
            _git(folder, "status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results")
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown", True


def _git(folder: Path, *arguments: str) -> str:
    said = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return said.stdout.strip()


def refuse_dirty(allowed: bool, folder: Path = HERE) -> str:
    """The name under which results are kept: the commit; refuses source that differs from it, unless allowed.

    Raises
    ------
    SystemExit
        If files differ from the commit.
    """
    commit, dirty = source(folder)
    if dirty and not allowed:
        raise SystemExit(
            f"files differ from commit {commit}, so that nobody could repeat what is measured; commit first, or "
            "write --allow-dirty, which is recorded"
        )
    return f"{commit}-dirty" if dirty else commit


def busy_seconds() -> tuple[float, float]:
    """CPU seconds of all processors since the machine started, and those of this process and all its children."""
    cores = psutil.cpu_times()
    # what a hypervisor gave to others is as little ours as what other processes took
    everything = sum(
        getattr(cores, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq", "steal")
    )
    me = psutil.Process()
    own = 0.0
    for process in (me, *me.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            own += sum(process.cpu_times()[:4])  # the children that are gone are in those of their parent
    return everything, own


class Others:
    """How many cores other processes keep busy, since this was made."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.mark = busy_seconds()

    def cores(self) -> float:
        """The mean till now."""
        everything, own = busy_seconds()
        elapsed = max(time.perf_counter() - self.start, 1e-3)
        return max(0.0, ((everything - self.mark[0]) - (own - self.mark[1])) / elapsed)


def others_busy(seconds: float) -> float:
    """Cores that other processes keep busy, over some seconds."""
    others = Others()
    time.sleep(seconds)
    return others.cores()


def wait_for_quiet(
    limit: float = 300.0,
    seconds: float = 1.0,
    wanted: int = 1,
    *,
    cores: int | None = None,
    measure: Callable[[float], float] = others_busy,
) -> float:
    """Wait until others leave as many cores as are wanted; how many they keep busy then.

    The load average counts what this process has just done, and lags by a minute; this does neither.

    Parameters
    ----------
    limit : float
        Seconds to wait at most.
    seconds : float
        Over which the others are watched.
    wanted : int
        Cores for what is to be measured, all that runs side by side.
    cores : int, optional
        Of the machine.
    measure : callable
        Cores that others keep busy over some seconds.

    Raises
    ------
    BusyError
        If they do not within the limit.
    """
    cores = cores or os.cpu_count() or 1
    end, said = time.monotonic() + limit, False
    while True:
        others = measure(seconds)
        if others + wanted <= cores + SLACK:
            return others
        if time.monotonic() >= end:
            raise BusyError(
                f"other processes keep {others:.1f} of {cores} cores busy, and {wanted} "
                f"{'is' if wanted == 1 else 'are'} wanted; waited {limit:g} s: stop them, or measure later"
            )
        if not said:
            print(
                f"waiting: other processes keep {others:.1f} of {cores} cores busy",
                file=sys.stderr,
                flush=True,
            )
            said = True
        time.sleep(min(5.0, max(limit / 10, 0.01)))


def spread(values: Sequence[float], write: Callable[[float], str] = "{:.3g}".format) -> str:
    """Median [minimum–maximum] of some runs; only the value of one."""
    middle = write(median(values))
    return middle if len(values) == 1 else f"{middle} [{write(min(values))}–{write(max(values))}]"
