"""What it costs to watch: CPU of training on a cluster with the page open in a browser, and without.

    python benchmarks/dashboard.py mnist.npz [--repeats 3] [--sweeps 3]

A scheduler, in this process, and two workers train 784-300-784 by increments and by z that persists, with nobody
watching and with the page open in Debian's chromium (driven by playwright, in processes whose CPU does not count), in
turn, now the one first and now the other. Counted are the CPU seconds of this process, where the page is made, and of
the workers, which do the same whether anybody watches or not: what their times differ by is the noise of the machine.
Opening the page, which the scheduler makes, is part of it; starting a browser is not.
So the cost is what this process takes more, as a share of all that training takes.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from distributed import Client, LocalCluster
from opening import add_options, line, opening

from altmin_dask import runs
from altmin_dask.config import Pipeline
from altmin_dask.dashboard.plugin import install
from altmin_dask.data.ingest import ingest
from altmin_dask.data.open import open_source
from altmin_dask.storage.run import RunFolder


def cpu_seconds(client: Client) -> np.ndarray:
    """Of this process, which is the scheduler's too, and of the workers."""
    workers = client.run(lambda: sum(psutil.Process().cpu_times()[:2]))
    return np.array([sum(psutil.Process().cpu_times()[:2]), sum(workers.values())])


@contextmanager
def watched(watching: bool) -> Any:
    """A page in a browser, which is still empty, if anybody watches."""
    if not watching:
        yield None
        return
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1300, "height": 1180})
        yield page
        browser.close()


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mnist", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--sweeps", type=float, default=3.0)
    add_options(parser)
    return parser.parse_args()


def make_stores(mnist: Path, folder: Path) -> dict[str, str]:
    """Where the samples for training and for testing are, once they are stored."""
    stores = {}
    for part in ("train", "test"):
        stores[part] = str(folder / f"{part}.zarr")
        ingest(open_source(f"{mnist}:{part}"), stores[part], scale=255, chunk_rows=2500)
    return stores


def make_pipeline(stores: dict[str, str], schedule: str, sweeps: float, title: str) -> Pipeline:
    """784-300-784, for so many sweeps."""
    return Pipeline.model_validate(
        {
            "data": {"train": stores["train"], "validation": stores["test"]},
            "network": {"kind": "autoencoder", "hidden_layer_sizes": (300,)},
            "training": {"schedule": schedule, "max_sweeps": sweeps, "n_iter_no_change": None},
            "output": {"title": title},
        }
    )


def cost_of_training(
    client: Client, pipeline: Pipeline, run: Path, url: str, *, watching: bool
) -> np.ndarray:
    """CPU seconds, as of `cpu_seconds`, of a training that is watched or not."""
    with watched(watching) as page:
        before = cpu_seconds(client)
        if page is not None:
            page.goto(url)
        runs.train(pipeline, RunFolder(run), scheduler=client, log=lambda line: None)
        spent = cpu_seconds(client) - before
    return spent


def print_row(schedule: str, spent: dict[bool, list[np.ndarray]]) -> None:
    """What watching costs, in a row of the table."""
    alone, seen = np.array(spent[False]), np.array(spent[True])
    total = np.median(alone.sum(axis=1))
    cost, ratio = (seen - alone)[:, 0] / total, seen.sum(axis=1) / alone.sum(axis=1)
    costs = ", ".join(f"{value:+.1%}" for value in sorted(cost))
    ratios = ", ".join(f"{value:.3f}" for value in sorted(ratio))
    print(
        f"| {schedule} | {total:.1f} | {np.median(cost):+.1%} ({costs}) | {np.median(ratio):.3f} ({ratios}) |",
        flush=True,
    )


def main() -> None:
    """Train alone and watched, in turn, and print the table."""
    options = parsed()
    print(line(opening(options=options, wanted=2)))
    with (
        tempfile.TemporaryDirectory() as name,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        folder = Path(name)
        stores = make_stores(options.mnist, folder)
        url = install(client)
        print(
            "| schedule | CPU s alone | cost of watching, median (all) | all of CPU, watched / alone, median (all) |"
        )
        print("| --- | --- | --- | --- |")
        for schedule in ("kfac", "windows"):
            spent: dict[bool, list[np.ndarray]] = {False: [], True: []}
            for number in range(options.repeats + 1):
                title = f"MNIST 784-300-784, {schedule} {number}"
                pipeline = make_pipeline(stores, schedule, options.sweeps, title)
                for watching in (False, True) if number % 2 else (True, False):
                    run = folder / f"{schedule}-{number}-{watching}"
                    cost = cost_of_training(client, pipeline, run, url, watching=watching)
                    if number:  # the first ones load what there is to load
                        spent[watching].append(cost)
            print_row(schedule, spent)


if __name__ == "__main__":
    main()
