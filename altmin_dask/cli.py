"""The command line: `altmin ingest`, `plan`, `train`, `evaluate`, `predict`, `report`, `export`, `dashboard`.

A command imports what it needs when it runs: help is there at once, though Dask, scikit-learn and zarr take seconds.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console

from altmin_dask import __version__
from altmin_dask.errors import (
    AltMinError,
    AltMinWarning,
    ConfigError,
    DataError,
    ExistsError,
    MissingError,
    RunError,
)

if TYPE_CHECKING:
    from altmin_dask.data.sample_store import SampleStore
    from altmin_dask.storage.run import RunFolder

app = typer.Typer(
    name="altmin",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

_INTERRUPTED = 130  # how typer exits on Ctrl-C

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="digits, synthetic:rows=N,features=N, a .npz, .npy, .csv or .parquet file, a folder of idx files, tables "
        "or images, or a zarr path or URL; append :train or :test for a split",
    ),
]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run folder that `altmin train` made.")]
SchedulerOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Run on the Dask scheduler at this address.")
]
PipelineArgument = Annotated[Path, typer.Argument(metavar="PIPELINE.toml", help="What to train on what.")]
OverridesArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="More settings, as --set takes them.")
]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, e.g. solver.mu=0.1."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what this command wrote before.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"altmin {__version__}")
        raise typer.Exit


@app.callback()
def altmin(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Train neural networks by alternating minimisation, out of core, on Dask and zarr."""


@app.command("ingest")
def ingest_command(
    source: SourceArgument,
    dest: Annotated[str, typer.Argument(metavar="DEST.zarr", help="The sample store to write.")],
    x: Annotated[
        str | None, typer.Option(help="Name of the array of samples, or of columns: NAME,NAME,…")
    ] = None,
    y: Annotated[str | None, typer.Option(help="Name of the array of targets, or of columns.")] = None,
    scale: Annotated[float, typer.Option(metavar="DIVISOR", help="Divide samples by this.")] = 1.0,
    standardize: Annotated[
        bool,
        typer.Option("--standardize", help="Bring every number, and real targets, to mean 0, variance 1."),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="float32|float64",
            help="Of the store; float64 keeps all digits, for networks of that dtype.",
        ),
    ] = "float32",
    chunk_rows: Annotated[
        int | None, typer.Option(metavar="N", help="Rows in a chunk; by default about 8 MiB.")
    ] = None,
    overwrite: OverwriteOption = False,
) -> None:
    """Stream samples from anywhere into a sample store."""
    from rich.progress import Progress

    from altmin_dask.data.ingest import ingest
    from altmin_dask.data.open import open_source

    console = Console(stderr=True)
    opened = open_source(source, x=x, y=y)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"ingest {source}", total=opened.rows)
        store = ingest(
            opened,
            dest,
            scale=scale,
            chunk_rows=chunk_rows,
            overwrite=overwrite,
            standardize=standardize,
            dtype=dtype,
            progress=lambda done, _: bar.update(task, completed=done),
        )
    targets = "no targets" if store.y is None else f"targets {store.y.dtype}"
    typer.echo(
        f"{store.path}: {store.rows} samples of {'×'.join(map(str, store.sample_shape))} {store.x.dtype}, {targets}, "
        f"{store.n_chunks} chunks of {store.chunk_rows} rows"
    )


@app.command("plan")
def plan_command(
    pipeline: PipelineArgument,
    overrides: OverridesArgument = None,
    scheduler: SchedulerOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what training would need, and whether it fits; nothing is computed or written."""
    from altmin_dask.config import load_pipeline
    from altmin_dask.display import table
    from altmin_dask.execution.connect import open_executor, planned_resources
    from altmin_dask.planning.plan import make_plan

    loaded = load_pipeline(pipeline, [*(settings or ()), *(overrides or ())])
    if scheduler is None:
        place = planned_resources(loaded.cluster)
    else:
        with open_executor(loaded.cluster, scheduler) as executor:
            place = executor.resources()
    plan = make_plan(loaded, None, place)
    if as_json:
        typer.echo(json.dumps(plan.numbers()))
    else:
        Console().print(table(f"Plan of {pipeline}", plan.lines()))
    plan.check()


@app.command()
def train(
    pipeline: PipelineArgument,
    overrides: OverridesArgument = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Run folder; by default a new one.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    scheduler: SchedulerOption = None,
    settings: SettingsOption = None,
) -> None:
    """Train the network of a pipeline and report on it."""
    from altmin_dask import runs
    from altmin_dask.config import load_pipeline
    from altmin_dask.display import display
    from altmin_dask.report.writer import ReportWriter
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    console = Console()
    loaded = load_pipeline(pipeline, [*(settings or ()), *(overrides or ())])
    folder = RunFolder(local_path(run) if run else runs.default_run(loaded, pipeline, resume))
    log = partial(_print, console)
    callbacks = [display(console), *([ReportWriter(log)] if loaded.output.report else [])]
    try:
        runs.train(loaded, folder, callbacks, resume=resume, scheduler=scheduler, log=log)
    except KeyboardInterrupt:
        if not folder.started:
            raise
        raise RunError(
            f"interrupted; go on by `altmin train {quote(str(pipeline))} --run {quote(str(folder.path))} --resume`"
        ) from None


@app.command()
def evaluate(
    run: RunArgument,
    source: SourceArgument,
    as_json: JsonOption = False,
    scheduler: SchedulerOption = None,
) -> None:
    """Measure the trained network on samples with targets."""
    from altmin_dask.config import ClusterTable
    from altmin_dask.display import table
    from altmin_dask.execution.connect import open_executor
    from altmin_dask.inference import evaluate_store
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.model import Model
    from altmin_dask.storage.run import RunFolder

    folder = RunFolder(local_path(run))
    with _opened(folder, source) as store, open_executor(ClusterTable(), scheduler) as executor:
        quality = evaluate_store(folder, store, executor)
        labels = Model.load(folder.model).network.loss.target == "labels"
    result: dict[str, Any] = {
        "run": run,
        "source": source,
        "samples": int(quality.samples),
        "loss": quality.mean_loss if math.isfinite(quality.mean_loss) else None,
        "accuracy": quality.accuracy if labels else None,
    }
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        rows = [("samples", f"{result['samples']}"), ("loss", f"{quality.mean_loss:.6g}")]
        if labels:
            rows.append(("accuracy", f"{quality.accuracy:.2%}"))
        Console().print(table(f"{run} on {source}", rows))


@app.command()
def predict(
    run: RunArgument,
    source: SourceArgument,
    dest: Annotated[str, typer.Argument(metavar="DEST.zarr", help="The store of predictions to write.")],
    overwrite: OverwriteOption = False,
    scheduler: SchedulerOption = None,
) -> None:
    """Write the trained network's outputs for every sample."""
    from altmin_dask.config import ClusterTable
    from altmin_dask.execution.connect import open_executor
    from altmin_dask.inference import predict_store
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    folder = RunFolder(local_path(run))
    with _opened(folder, source) as store, open_executor(ClusterTable(), scheduler) as executor:
        written = predict_store(folder, store, dest, executor, overwrite=overwrite)
    typer.echo(f"{written}: predictions for {store.rows} samples")


@app.command()
def report(run: RunArgument) -> None:
    """Write the report of a run: a self-contained HTML page and PNG figures."""
    from altmin_dask.report.page import write_report
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    typer.echo(str(write_report(RunFolder(local_path(run)))))


@app.command()
def export(
    run: RunArgument,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="FILE.onnx, FILE.pt for torch.export.load, or FILE.safetensors with PyTorch's names of weights.",
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that was exported.")
    ] = False,
) -> None:
    """Write the trained network for other programs."""
    from altmin_dask.export import WRITERS
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.model import Model
    from altmin_dask.storage.run import RunFolder

    model, path = Model.load(RunFolder(local_path(run)).model), local_path(file)
    if path.suffix not in WRITERS:
        raise ConfigError(
            f"{path} ends in no format known here; write FILE.onnx, FILE.pt or FILE.safetensors"
        )
    if os.path.lexists(path) and not overwrite:
        raise ExistsError(
            f"{path} exists already; give another name, or --overwrite to replace an exported model"
        )
    if not path.parent.is_dir():
        raise MissingError(f"there is no folder {path.parent}; make it first")
    WRITERS[path.suffix](model, path)
    typer.echo(f"{path}: {'-'.join(map(str, model.network.sizes))} {model.kind}")


@app.command()
def dashboard(
    run: RunArgument,
    address: Annotated[
        str, typer.Option(help="Where to listen; by default this machine can open the page, and no other.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 for any that is free.")] = 5006,
) -> None:
    """Serve the page of a run, as it is in the Dask dashboard: live, or after the fact."""
    from altmin_dask.dashboard.server import serve
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    serve(RunFolder(local_path(run)), address, port, lambda line: typer.echo(line))


@contextmanager
def _opened(folder: RunFolder, source: str) -> Iterator[SampleStore]:
    """A source as a store, scaled as the run's training data were; what is not a store lives for this command."""
    from altmin_dask.data.find import find_store
    from altmin_dask.storage.model import Model

    if not folder.path.is_dir():
        raise MissingError(f"{folder.path} is not a run folder; name one that `altmin train` made")
    model = Model.load(folder.model)
    with tempfile.TemporaryDirectory(prefix="altmin-") as temporary:
        dtype = str(model.weights[0].dtype)
        store = find_store(
            source, "source", Path(temporary), model.scale, None, like=model.preparation, dtype=dtype
        )
        if store.preparation != model.preparation:
            raise DataError(
                f"{source} was prepared otherwise than the samples for training; name the raw data, or a store of the "
                "same kind"
            )
        yield store


def main() -> None:
    """Run the command line: whatever goes wrong ends in one sentence and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half-written goes then, too
    warnings.showwarning = _warn
    logging.getLogger("distributed.client").addFilter(_is_critical)
    try:
        app(prog_name="altmin")
    except AltMinError as error:
        _fail(error, error.exit_code)
    except (
        FileExistsError,
        FileNotFoundError,
        NotADirectoryError,
        IsADirectoryError,
        PermissionError,
    ) as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else error, 2)
    except OSError as error:
        from altmin_dask.execution.faults import sentence

        _fail(sentence(error, "a file"), 1)
    except SystemExit as end:
        if end.code != _INTERRUPTED:
            raise
        _fail("interrupted", 1)
    except Exception as error:
        if os.environ.get("ALTMIN_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (ALTMIN_DEBUG=1 shows where)", 1)


def _is_critical(record: logging.LogRecord) -> bool:
    """Let a lost scheduler end in our sentence alone; Dask sets levels when it is imported, and leaves filters."""
    return record.levelno >= logging.CRITICAL


def _print(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show our own warnings as a sentence, those of libraries as Python does."""
    if issubclass(category, AltMinWarning):
        typer.echo(f"altmin: warning: {message}", err=True)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def _fail(message: object, code: int) -> NoReturn:
    typer.echo(f"altmin: {' '.join(str(message).split())}", err=True)
    sys.exit(code)
