"""Train on, and predict for, more samples than all workers of a local cluster could hold.

With its defaults it writes a store of 4.7 GB, and every worker may use 1 GiB; it takes some minutes.

    python examples/larger_than_memory.py [FOLDER] [--rows 1500000] [--workers 2] [--memory "1 GiB"]
"""

import argparse
import tempfile
from pathlib import Path

import dask.array as da
import zarr
from distributed import Client, LocalCluster

from altmin_dask import AltMinClassifier
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=1_500_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="1 GiB")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="altmin-"))

    # 1. Samples of a seeded teacher are streamed into a store; a csv file, a dask array or a zarr array would do, too.
    spec = f"synthetic:rows={options.rows},features=784,classes=10,seed=0"
    store = ingest(open_source(spec), folder / "samples.zarr", overwrite=True)
    print(f"{store.path}: {store.x.nbytes / 1e9:.2f} GB of samples in {store.n_chunks} chunks")

    with (
        LocalCluster(
            n_workers=options.workers,
            threads_per_worker=1,
            memory_limit=options.memory,
            dashboard_address=":0",
        ) as cluster,
        Client(cluster) as client,
    ):
        # 2. The client that is active is used; workers read the store where it is, chunk by chunk.
        classifier = AltMinClassifier(100, max_sweeps=2, temporary_folder=folder, random_state=0)
        classifier.fit(store.path)
        before, after = classifier.loss_curve_[0], classifier.best_loss_
        print(f"loss {before:.3f} before, {after:.3f} after {classifier.n_iter_} sweeps")

        # 3. Predictions are lazy, and are written as they come.
        labels = classifier.predict(store.path)
        print(labels)
        da.to_zarr(labels, str(folder / "labels.zarr"), zarr_format=3)
        hits = (labels == da.from_zarr(store.y)).mean()
        print(f"accuracy on all samples: {hits.compute():.3f}")
        peak = max(client.run(lambda dask_worker: dask_worker.monitor.recent()["memory"]).values())
        print(f"{peak / 2**20:.0f} MiB in the fullest worker, of {options.memory}")
    print(f"{zarr.open_array(folder / 'labels.zarr').shape[0]} labels in {folder / 'labels.zarr'}")


if __name__ == "__main__":
    main()
