"""Ingest of a csv far larger than the memory it may take: MB/s of CPU beside pandas' own reader, and the peak.

Each runs in a process of its own, one thread; the peak is what its resident memory grows by: chunks on their way, a
bucket of what is shuffled, and the block of csv that is parsed.

    python benchmarks/ingesting.py                    # 190 MB: two minutes
    python benchmarks/ingesting.py --megabytes 2000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from opening import add_options, line, opening

CHILD = """
import json, sys, time, warnings
import numpy as np, pandas as pd
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field))) * 1024

warnings.simplefilter("ignore")
how, source, small, dest = sys.argv[1:]
ingest(open_source(small), dest + ".warm")
open("/proc/self/clear_refs", "w").write("5")
before, start = memory("VmRSS"), time.process_time()
if how == "pandas":
    for block in pd.read_csv(source, chunksize=100_000):
        pass
else:
    ingest(open_source(source), dest, shuffle=how == "shuffled")
print(json.dumps([time.process_time() - start, memory("VmHWM") - before]))
"""


def write(file: Path, megabytes: float) -> None:
    """Rows of 14 decimals, two whole numbers, a word and a label."""
    rng, words = np.random.default_rng(0), np.array(["red", "green", "blue"])
    names = [*(f"f{i}" for i in range(14)), "n", "m", "colour", "y"]
    with file.open("w") as text:
        text.write(",".join(names) + "\n")
        while text.tell() < megabytes * 1e6:
            rows = 5000
            columns = [*np.char.mod("%.6f", rng.normal(size=(14, rows)))]
            columns += [*np.char.mod("%d", rng.integers(0, 1000, (2, rows))), words[rng.integers(0, 3, rows)]]
            columns.append(np.char.mod("%d", rng.integers(0, 2, rows)))
            text.write("\n".join(map(",".join, zip(*columns, strict=True))) + "\n")


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=190.0)
    add_options(parser)
    options = parser.parse_args()
    print(line(opening("pandas", "zarr", options=options)))
    with tempfile.TemporaryDirectory() as home:
        big, small = Path(home, "big.csv"), Path(home, "small.csv")
        write(small, 0.1)
        write(big, options.megabytes)
        size = big.stat().st_size / 1e6
        for how in ("pandas", "in order", "shuffled"):
            words = [sys.executable, "-c", CHILD, how, str(big), str(small), f"{home}/{how}.zarr"]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            seconds, peak = json.loads(done.stdout)
            print(
                f"{how}: {size / seconds:.0f} MB/s of CPU, peak {peak / 2**20:.0f} MiB for {size:.0f} MB of csv"
            )


if __name__ == "__main__":
    main()
