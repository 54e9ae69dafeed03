"""Train an auto-encoder on the bundled digits from Python, and draw what it makes of unseen ones.

python examples/digits_autoencoder.py [FOLDER]
"""

import sys
import tempfile
from pathlib import Path

from matplotlib.figure import Figure
from rich.console import Console

from altmin_dask.config import Pipeline
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.display import display
from altmin_dask.runs import train
from altmin_dask.storage.model import Model
from altmin_dask.storage.run import RunFolder


def main(folder: Path) -> None:
    # 1. Samples become chunked zarr stores; nothing but chunks is ever in memory.
    train_store = ingest(open_source("digits:train"), folder / "train.zarr", scale=16)
    test_store = ingest(open_source("digits:test"), folder / "test.zarr", scale=16)

    # 2. A pipeline is what a TOML file would say.
    pipeline = Pipeline.model_validate(
        {
            "data": {"train": train_store.path, "validation": test_store.path},
            "network": {"kind": "autoencoder", "hidden_layer_sizes": [32]},
            "training": {"max_sweeps": 50.0},
        }
    )
    run = RunFolder(folder / "run")
    records = train(pipeline, run, [display(Console())])
    print(f"held-out ½‖x̂ − x‖² = {min(record.validation_loss for record in records):.4f}")

    # 3. The model is plain NumPy.
    x = test_store.x[:10]
    reconstructed = Model.load(run.model).outputs(x)
    figure = Figure(figsize=(10, 2.2), layout="constrained")
    for axes, image in zip(figure.subplots(2, 10).flat, [*x, *reconstructed.reshape(x.shape)], strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.axis("off")
    figure.savefig(folder / "digits.png", dpi=150)
    print(folder / "digits.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp(prefix="altmin-")))
