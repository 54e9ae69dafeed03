"""How every benchmark begins: not beside others, with a line that says where and of which commit its figures are."""

from __future__ import annotations

import argparse
from typing import Any

from measuring import machine, others_busy, wait_for_quiet


def add_options(parser: argparse.ArgumentParser) -> None:
    """Of benchmarks that measure time."""
    parser.add_argument(
        "--wait",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="for other processes to leave a core free",
    )
    parser.add_argument(
        "--anyway", action="store_true", help="do not wait; the first line says what others keep busy"
    )


def opening(*libraries: str, options: argparse.Namespace | None = None, wanted: int = 1) -> dict[str, Any]:
    """Wait until the machine is free, and say where and with what this is measured.

    Parameters
    ----------
    *libraries : str
        As of `measuring.machine`.
    options : Namespace, optional
        With those of `add_options`; without them there is no time to measure, and nothing to wait for.
    wanted : int
        Cores for what is measured.

    Returns
    -------
    dict
        What `measuring.machine` says, and ``others_busy``, the cores that other processes keep busy.

    Raises
    ------
    measuring.BusyError
        If other processes do not leave so many cores in time.
    """
    found = machine(*libraries)
    waits = options is not None and not options.anyway
    found["others_busy"] = wait_for_quiet(options.wait, wanted=wanted) if waits else others_busy(0.5)
    return found


def line(found: dict[str, Any]) -> str:
    """What `opening` says in one line, which stands above everything that a benchmark prints."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return (
        f"{found['cpu']}, {found['cores']} cores, of which other processes keep {found['others_busy']:.1f} busy; "
        f"BLAS {', '.join(found['blas'])}; Python {found['python']}, {versions}; "
        f"commit {found['commit']}{', and files that differ from it' if found['dirty'] else ''}"
    )
