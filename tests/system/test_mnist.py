"""What pipelines/mnist_autoencoder.toml promises about MNIST, through the command line; skipped without the data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MNIST = Path(os.environ.get("ALTMIN_MNIST", ROOT.parent / "shared" / "data" / "mnist.npz"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not MNIST.exists(), reason="needs mnist.npz (set ALTMIN_MNIST)"),
]


def run(*arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_autoencoder_reaches_its_marks(tmp_path):
    """Held-out ½‖x̂ − x‖² ≤ 0.55 within 60,000 sample visits, ≤ 0.35 (PCA with 300 components: 0.358) within 180,000."""
    altmin = ("-m", "altmin_dask")
    for split in ("train", "test"):
        run(
            *altmin,
            "ingest",
            f"{MNIST}:{split}",
            tmp_path / f"{split}.zarr",
            "--scale",
            "255",
            "--chunk-rows",
            "2500",
        )
    folder = tmp_path / "run"
    run(
        *altmin,
        "train",
        ROOT / "pipelines" / "mnist_autoencoder.toml",
        "--run",
        folder,
        "--set",
        f"data.train={tmp_path}/train.zarr",
        "--set",
        f"data.validation={tmp_path}/test.zarr",
    )
    records = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
    for sweeps, bar in ((1, 0.55), (3, 0.35)):
        assert min(r["validation_loss"] for r in records if r["sweep"] <= sweeps) <= bar
    assert records[-1]["sweep"] == pytest.approx(5.0)
    result = json.loads(run(*altmin, "evaluate", folder, tmp_path / "test.zarr", "--json"))
    assert result["loss"] == pytest.approx(min(r["validation_loss"] for r in records), rel=1e-6)
    assert (folder / "report" / "reconstructions.png").exists()
