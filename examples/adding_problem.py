"""Train a recurrent network to add two marked numbers out of 30, and draw how well it does on unseen sequences.

python examples/adding_problem.py [FOLDER, by default runs/examples]
"""

import sys
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from matplotlib.figure import Figure
from sklearn.exceptions import ConvergenceWarning

from altmin_dask import AltMinRecurrentRegressor, ingest, open_source

STEPS = 30


def main(pictures: Path, folder: Path) -> None:
    print(f"1. Sequences are samples of shape (steps, features): 8,000 of {STEPS} steps, and 2,000 others.")
    source = f"adding:rows=8000,steps={STEPS}"
    train_store = ingest(open_source(source), folder / "train.zarr", chunk_rows=1000)
    test_store = ingest(open_source(f"{source}:test"), folder / "test.zarr", chunk_rows=1000)

    print("2. 32 tanh units read them step by step; the loss, ½ squared error, is at the last step.")
    regressor = AltMinRecurrentRegressor(
        32, ridge=0.005, max_sweeps=25, early_stopping=True, random_state=0, verbose=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 25 sweeps take seconds; more would gain still
        regressor.fit(train_store.path)

    print("3. Predictions for sequences that were not trained on.")
    x, y = np.asarray(test_store.x[:2000]), np.asarray(test_store.y[:2000])
    predicted = regressor.predict(x)
    print(f"   mean squared error {np.mean((predicted - y) ** 2):.4f}; of the mean {np.var(y):.4f}")
    draw(x, y, predicted, pictures / "adding_problem.png")
    print(f"   drawn: {pictures / 'adding_problem.png'}")


def draw(x: np.ndarray, y: np.ndarray, predicted: np.ndarray, file: Path) -> None:
    """How the error depends on what has to be remembered."""
    first = x[:, :, 1].argmax(axis=1)
    errors = [np.sqrt(np.mean((predicted - y)[first == t] ** 2)) for t in range(STEPS // 2)]
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
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="altmin-") as folder:
        main(pictures, Path(folder))
