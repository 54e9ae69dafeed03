"""Kill a run in the middle, go on with it, and end with the weights of a run that nobody killed.

python examples/resume_after_kill.py [FOLDER, by default runs/examples]
"""

import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure
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


def records(folder: Path, run: str) -> list[dict[str, float]]:
    """What is committed so far."""
    history = folder / run / "history.jsonl"
    return [json.loads(line) for line in history.read_text().splitlines()] if history.exists() else []


def sweeps(folder: Path, run: str) -> float:
    return records(folder, run)[-1]["sweep"] if records(folder, run) else 0.0


def main(pictures: Path, folder: Path) -> None:
    (folder / "digits.toml").write_text(PIPELINE)

    print("1. A run is killed in the middle of a step: no handler, no last word.")
    process = altmin_train(folder, "killed")
    while process.poll() is None and sweeps(folder, "killed") < 3:
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = sweeps(folder, "killed")
    print(f"   killed after {before:g} recorded sweeps")

    print("2. It goes on from its last committed state.")
    assert altmin_train(folder, "killed", "--resume").wait() == 0
    print(f"   resumed, and done after {sweeps(folder, 'killed'):g} sweeps")

    print("3. A run that was left alone ends with the same bits.")
    assert altmin_train(folder, "alone").wait() == 0
    one, other = (load_file(folder / run / "model" / "weights.safetensors") for run in ("killed", "alone"))
    same = all(one[name].tobytes() == other[name].tobytes() for name in other)
    print(f"   the weights of both runs are {'equal, bit by bit' if same else 'different'}")
    draw(folder, before, pictures / "resume_after_kill.png")
    sys.exit(0 if same else 1)


def draw(folder: Path, killed: float, file: Path) -> None:
    """Both curves, one on the other."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    for run, style in (("alone", "-"), ("killed", "o")):
        points = records(folder, run)
        axes.plot([p["sweep"] for p in points], [p["validation_loss"] for p in points], style, label=run)
    axes.axvline(killed, color="gray", linestyle="--", label="where it was killed")
    axes.set(yscale="log", xlabel="sweeps", ylabel="validation loss")
    axes.legend()
    figure.savefig(file, dpi=120)
    print(f"   drawn: {file}")


if __name__ == "__main__":
    pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="altmin-") as folder:
        main(pictures, Path(folder))
