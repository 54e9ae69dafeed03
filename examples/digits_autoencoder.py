"""Train an auto-encoder on the bundled digits from Python, and draw what it makes of unseen ones.

python examples/digits_autoencoder.py [FOLDER, by default runs/examples]
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.figure import Figure

from altmin_dask import Model, RunFolder, ingest, load_pipeline, open_source, train

PIPELINE = """
[data]
train = "{train}"
validation = "{test}"

[network]
kind = "autoencoder"
hidden_layer_sizes = [32]
"""


def main(pictures: Path, folder: Path) -> None:
    print("1. Samples become chunked zarr stores; nothing but chunks is ever in memory.")
    train_store = ingest(open_source("digits:train"), folder / "train.zarr", scale=16)
    test_store = ingest(open_source("digits:test"), folder / "test.zarr", scale=16)
    print(
        f"   {train_store.rows} digits in {train_store.n_chunks} chunks to train on, {test_store.rows} others"
    )

    print("2. A pipeline is trained, which `altmin train` would do just so.")
    (folder / "digits.toml").write_text(PIPELINE.format(train=train_store.path, test=test_store.path))
    run = RunFolder(folder / "run")
    records = train(load_pipeline(folder / "digits.toml"), run, log=lambda line: print(f"   {line}"))
    best = min(records, key=lambda record: record.validation_loss)
    print(f"   held-out ½‖x̂ − x‖²: {records[0].validation_loss:.3f} before, {best.validation_loss:.4f} now")

    print("3. The model is plain NumPy.")
    x = test_store.x[:10]
    reconstructed = Model.load(run.model).outputs(x)
    figure = Figure(figsize=(10, 2.2), layout="constrained")
    for axes, image in zip(figure.subplots(2, 10).flat, [*x, *reconstructed.reshape(x.shape)], strict=True):
        axes.imshow(image, cmap="gray", vmin=0, vmax=1)
        axes.axis("off")
    figure.savefig(pictures / "digits_autoencoder.png", dpi=150)
    print(f"   drawn: {pictures / 'digits_autoencoder.png'}")


if __name__ == "__main__":
    pictures = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
    pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="altmin-") as folder:
        main(pictures, Path(folder))
