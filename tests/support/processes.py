"""A real cluster of `dask scheduler` and `dask worker` processes, and clients, to be killed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), str(HERE)])}


def spawn(*words: Any, log: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start Python with these arguments, its output appended to a log."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *map(str, words)],
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            env={**ENVIRONMENT, **environment},
        )


def finish(
    pipeline: Path, run: Path, *words: Any, code: int = 0, script: Any = None, **environment: str
) -> Path:
    log = pipeline.parent / f"{run.name}.log"
    start = ["-m", "altmin_dask"] if script is None else [script]
    process = spawn(*start, "train", pipeline, "--run", run, *words, log=log, **environment)
    assert process.wait(timeout=120) == code, log.read_text()
    return run


def outcome(run: Path) -> Any:
    """All that must not depend on interruptions: the weights' bits, and the history without its times."""
    records = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    for record in records:
        del record["cpu_seconds"], record["wall_seconds"]
    return (run / "model" / "weights.safetensors").read_bytes(), records


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Cluster:
    """A scheduler and two nannies with a worker each, on one port throughout."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.port, self.environment = folder, free_port(), environment
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start whatever does not run."""
        for name in ("scheduler", "nanny-0", "nanny-1"):
            if name not in self.processes or self.processes[name].poll() is not None:
                if name == "scheduler":
                    words = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", self.port]
                else:
                    words = [
                        "distributed.cli.dask_worker",
                        self.address,
                        "--nthreads",
                        "1",
                        "--death-timeout",
                        "20",
                    ]
                    words += ["--local-directory", self.folder / name]
                    if "ALTMIN_KILL" in self.environment:
                        words += ["--preload", HERE / "killers.py"]
                self.processes[name] = spawn(
                    "-m", *words, "--no-dashboard", log=self.folder / f"{name}.log", **self.environment
                )

    def kill(self, name: str) -> bool:
        """SIGKILL the scheduler, a nanny with its worker, or ("worker-…") a worker alone; False if it was gone."""
        if not name.startswith("worker"):
            children = _children(self.processes[name].pid) if name != "scheduler" else []
            alive = self.processes[name].poll() is None
            self.processes[name].kill()
            self.processes[name].wait()
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.kill()
            return alive
        workers = [
            child
            for child in _children(self.processes[name.replace("worker", "nanny")].pid)
            if "spawn_main" in " ".join(_command(child))
        ]
        for worker in workers:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        return bool(workers)

    def stop(self) -> None:
        for name in list(self.processes):
            self.kill(name)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


@contextmanager
def running_cluster(folder: Path, **environment: str) -> Iterator[Cluster]:
    cluster = Cluster(folder, **environment)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.stop()


def wait_for(condition: Any, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)
