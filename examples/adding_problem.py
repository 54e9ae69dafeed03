"""Train a recurrent network to add two marked numbers out of 30, and draw how well it does on unseen sequences.

python examples/adding_problem.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.display import display
from altmin_dask.runs import train
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder

STEPS = 30


def main(folder: Path) -> None:
    # 1. Sequences are samples of shape (steps, features), in chunks of whole sequences.
    source = f"adding:rows=8000,steps={STEPS}"
    train_store = ingest(open_source(source), folder / "train.zarr", chunk_rows=1000)
    test_store = ingest(open_source(f"{source}:test"), folder / "test.zarr", chunk_rows=1000)

    # 2. 32 tanh units read them step by step; the loss is at the last step.
    pipeline = Pipeline.model_validate(
        {
            "data": {"train": train_store.path, "validation": test_store.path},
            "network": {"kind": "recurrent_regressor", "hidden_layer_sizes": [32]},
            "training": {"max_sweeps": 25.0},
        }
    )
    run = RunFolder(folder / "run")
    train(pipeline, run, [display(Console())])

    # 3. Predictions of sequences that were not trained on, and how the error depends on what has to be remembered.
    x, y = np.asarray(test_store.x[:2000]), np.asarray(test_store.y[:2000])
    predicted = Model.load(run.model).predict(x)[:, 0]
    first = x[:, :, 1].argmax(axis=1)
    errors = [np.sqrt(np.mean((predicted - y)[first == t] ** 2)) for t in range(STEPS // 2)]
    print(f"mean squared error {np.mean((predicted - y) ** 2):.4f}; of the mean {np.var(y):.4f}")
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot([0, 2], [0, 2], color="gray", linewidth=1)
    left.plot(y, predicted, ".", markersize=2)
    left.set(xlabel="sum of the marked numbers", ylabel="prediction", title="unseen sequences")
    right.bar(np.arange(STEPS // 2), errors)
    right.axhline(np.std(y), color="gray", linestyle="--", label="predicting the mean")
    right.set(
        xlabel="step of the first marked number", ylabel="root mean squared error", title=f"{STEPS} steps"
    )
    right.legend()
    figure.savefig(folder / "adding.png", dpi=120)
    print(folder / "adding.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="altmin-")))
