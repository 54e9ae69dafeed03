"""`altmin evaluate` and `altmin predict`: a trained model over samples."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from altmin_dask.cli_options import (
    CsvOption,
    JsonOption,
    OverwriteOption,
    RunArgument,
    SchedulerFileOption,
    SchedulerOption,
    SourceArgument,
    XOption,
    YOption,
    joined,
    scheduler_at,
)


def evaluate_command(
    run: RunArgument,
    source: SourceArgument,
    x: XOption = None,
    y: YOption = None,
    csv: CsvOption = None,
    as_json: JsonOption = False,
    scheduler: SchedulerOption = None,
    scheduler_file: SchedulerFileOption = None,
) -> None:
    """Measure the trained network on samples with targets."""
    from altmin_dask.config import ClusterTable
    from altmin_dask.display import Heartbeat
    from altmin_dask.execution.connect import open_executor
    from altmin_dask.hints import check_run_first
    from altmin_dask.inference import described, evaluate_store, opened
    from altmin_dask.report.result_table import quality_tables
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.model import Model
    from altmin_dask.storage.run import RunFolder
    from altmin_dask.table_options import words_of

    check_run_first("evaluate", run, source)
    folder, where = RunFolder(local_path(run)), scheduler_at(scheduler, scheduler_file)
    with (
        Heartbeat(Console(stderr=True), f"evaluate on {source}"),
        opened(folder, source, joined(x), joined(y), csv=words_of(csv, "--csv")) as store,
        open_executor(ClusterTable(), where) as executor,
    ):
        quality = evaluate_store(folder, store, executor)
        result = described(run, source, Model.load(folder.model), store, quality)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        for part in quality_tables(result):
            Console().print(part)


def predict_command(
    run: RunArgument,
    source: SourceArgument,
    dest: Annotated[
        str,
        typer.Argument(
            metavar="DEST", help="What to write: a .csv, .parquet or .npy file, or else a zarr store."
        ),
    ],
    proba: Annotated[
        bool,
        typer.Option("--proba", help="Write the probability of every class, too; a zarr store has them."),
    ] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME,…", help="Columns of a table to carry over into a .csv or .parquet file."),
    ] = None,
    x: XOption = None,
    y: YOption = None,
    csv: CsvOption = None,
    overwrite: OverwriteOption = False,
    scheduler: SchedulerOption = None,
    scheduler_file: SchedulerFileOption = None,
) -> None:
    """Write the trained network's outputs for every sample, in the order of the source."""
    from altmin_dask.config import ClusterTable
    from altmin_dask.display import Heartbeat
    from altmin_dask.execution.connect import open_executor
    from altmin_dask.hints import check_run_first, check_source_first
    from altmin_dask.inference import opened
    from altmin_dask.outputs import check_output, write_predictions
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder
    from altmin_dask.table_options import words_of

    check_run_first("predict", run, source, dest)
    check_source_first("predict", source, dest, run)
    folder, where = RunFolder(local_path(run)), scheduler_at(scheduler, scheduler_file)
    read = words_of(csv, "--csv")
    wishes: dict[str, Any] = {"proba": proba, "keep": keep or (), "csv": read, "overwrite": overwrite}
    check_output(folder, source, dest, **wishes)
    with (
        Heartbeat(Console(stderr=True), f"predict for {source}"),
        opened(folder, source, joined(x), joined(y), targets=False, csv=read) as store,
        open_executor(ClusterTable(), where) as executor,
    ):
        written = write_predictions(folder, store, dest, executor, source=source, **wishes)
    typer.echo(f"{written}: predictions for {store.rows} samples")
