"""Wide data: CPU seconds and peak memory of the default classifier and of scikit-learn's MLP, each in its own process.

    python benchmarks/wide.py                     # every case, ours and theirs
    python benchmarks/wide.py --case "1000 x 50000" --of altmin

Memory is what the process had at its peak above what it has with everything imported: the samples are part of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """Samples: `classes` is 2 where the label follows from five features, else as many clouds of points."""

    rows: int
    features: int
    classes: int = 2
    new: int = 0

    def make(self) -> tuple[np.ndarray, np.ndarray]:
        """X of float32 and y."""
        rng, shape = np.random.default_rng(0), (self.rows + self.new, self.features)
        x = rng.standard_normal(shape, dtype=np.float32)
        if self.classes == 2:
            return x, (x[:, :5].sum(axis=1) > 0).astype(int)
        y = np.arange(len(x)) % self.classes
        x *= np.float32(0.5)
        x += rng.standard_normal((self.classes, self.features), dtype=np.float32)[y]
        return x, y


CASES = {
    "100 x 5000": Case(100, 5000),
    "1000 x 20000": Case(1000, 20_000),
    "1000 x 50000": Case(1000, 50_000),
    "6000 x 50, 3000 classes": Case(6000, 50, 3000, new=3000),
    "30000 x 50, 3000 classes": Case(30_000, 50, 3000, new=3000),
}


def status(key: str) -> int:
    """A size of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"/proc/self/status has no {key}; this benchmark needs Linux")


def measure(case: Case, library: str) -> dict[str, Any]:
    """Fit once in this process."""
    from sklearn.neural_network import MLPClassifier

    import altmin_dask.cli  # noqa: F401 - all that a process may come to import
    from altmin_dask import AltMinClassifier

    AltMinClassifier(max_sweeps=1).fit(np.eye(4, dtype=np.float32), [0, 1, 0, 1])
    idle = status("VmRSS")
    x, y = case.make()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    model = (AltMinClassifier if library == "altmin" else MLPClassifier)(random_state=0)
    cpu, wall = time.process_time(), time.perf_counter()
    model.fit(x[: case.rows], y[: case.rows])
    found = {
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "peak": (status("VmHWM") - idle) / MIB,
        "data": x.nbytes / MIB,
        "sweeps": model.n_iter_,
    }
    new = slice(-case.new, None) if case.new else slice(None)
    return {**found, "accuracy": model.score(x[new], y[new])}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--of", choices=["altmin", "sklearn"], action="append")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pairs = [(case, library) for case in args.case or CASES for library in args.of or ["altmin", "sklearn"]]
    for case, library in pairs:
        if args.here:
            print(json.dumps(measure(CASES[case], library)))
            continue
        command = [sys.executable, "-W", "ignore", __file__, "--here", "--case", case, "--of", library]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{case}, {library}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            continue
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{case}, {library}: {found['cpu']:.1f} CPU s, {found['wall']:.1f} s, peak {found['peak']:.0f} MiB "
            f"(data {found['data']:.0f}), {found['sweeps']} sweeps, accuracy {found['accuracy']:.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
