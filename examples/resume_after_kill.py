"""Kill a run in the middle, go on with it, and end with the weights of a run that nobody killed.

python examples/resume_after_kill.py [FOLDER]
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

PIPELINE = """
[data]
train = "digits:train"
validation = "digits:test"
scale = 16
[network]
kind = "autoencoder"
hidden_layer_sizes = [32]
[training]
max_sweeps = 12
[output]
report = false
"""


def altmin_train(folder: Path, run: str, *more: str) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "altmin_dask", "train", "digits.toml", "--run", run, *more]
    return subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)


def sweeps(folder: Path, run: str) -> float:
    history = folder / run / "history.jsonl"
    lines = history.read_text().splitlines() if history.exists() else []
    return json.loads(lines[-1])["sweep"] if lines else 0.0


def main(folder: Path) -> None:
    (folder / "digits.toml").write_text(PIPELINE)

    # 1. A run is killed, as by a power failure: no handler, no last word.
    process = altmin_train(folder, "killed")
    while process.poll() is None and sweeps(folder, "killed") < 3:
        time.sleep(0.02)
    process.kill()
    process.wait()
    print(f"killed after {sweeps(folder, 'killed'):g} recorded sweeps")

    # 2. It goes on from its last committed state.
    assert altmin_train(folder, "killed", "--resume").wait() == 0
    print(f"resumed, and done after {sweeps(folder, 'killed'):g} sweeps")

    # 3. A run that was left alone ends with the same bits.
    assert altmin_train(folder, "alone").wait() == 0
    one, other = (load_file(folder / run / "model" / "weights.safetensors") for run in ("killed", "alone"))
    same = all((one[name] == other[name]).all() for name in other)
    print(f"the weights of both runs are {'equal, bit by bit' if same else 'different'}")
    sys.exit(0 if same else 1)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="altmin-")))
