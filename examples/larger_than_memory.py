"""Train on, and predict for, more samples than all workers of a local cluster could hold.

With its defaults it writes a store of 4.7 GB, and every worker may use 1 GiB; it takes some minutes. The store stays if
FOLDER is given; without, it is removed at the end, and the picture is in runs/examples.

    python examples/larger_than_memory.py [FOLDER] [--rows 1500000] [--workers 2] [--memory "1 GiB"]
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import dask
import dask.array as da
import zarr
from distributed import Client, LocalCluster
from matplotlib.figure import Figure

from altmin_dask import AltMinClassifier, ingest, open_source


def options_of_the_command() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="1 GiB")
    return parser.parse_args()


def main(options: argparse.Namespace, folder: Path, scratch: str, pictures: Path) -> None:
    print(
        "1. Samples of a seeded teacher are streamed into a store; csv, a dask or a zarr array would do, too."
    )
    spec = f"synthetic:rows={options.rows},features=784,classes=10,seed=0"
    store = ingest(open_source(spec), folder / "samples.zarr", overwrite=True)
    print(f"   {store.x.nbytes / 1e9:.2f} GB of samples in {store.n_chunks} chunks")

    with (
        dask.config.set({"temporary-directory": scratch}),
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            memory_limit=options.memory,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        print("2. The client that is active is used; workers read the store where it is, chunk by chunk.")
        classifier = AltMinClassifier(
            100, max_sweeps=2, temporary_folder=folder, random_state=0, verbose=True
        )
        classifier.fit(store.path)

        print("3. Predictions are lazy, and are written as they come.")
        labels = classifier.predict(store.path)
        da.to_zarr(labels, str(folder / "labels.zarr"), zarr_format=3)
        hits = (labels == da.from_zarr(store.y)).mean()
        print(f"   accuracy on all samples: {hits.compute():.3f}")
        peak = max(client.run(lambda dask_worker: dask_worker.monitor.recent()["memory"]).values())
        print(f"   {peak / 2**20:.0f} MiB in the fullest worker, of {options.memory}")
    print(f"   {zarr.open_array(folder / 'labels.zarr').shape[0]} labels in {folder / 'labels.zarr'}")
    draw(classifier, pictures / "larger_than_memory.png")


def draw(classifier: AltMinClassifier, file: Path) -> None:
    """The loss over the sweeps."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot([record["sweep"] for record in classifier.history_], classifier.loss_curve_, "o-")
    axes.set(yscale="log", xlabel="sweeps", ylabel="cross entropy")
    figure.savefig(file, dpi=120)
    print(f"   drawn: {file}")


if __name__ == "__main__":
    options = options_of_the_command()
    pictures = options.folder or Path("runs/examples")
    pictures.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="altmin-") as scratch:
        main(options, options.folder or Path(scratch), scratch, pictures)
