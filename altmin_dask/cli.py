"""The command line: `altmin init`, `settings`, `ingest`, `plan`, `train`, `evaluate`, `predict`, `report`, `export`, ….

A command imports what it needs when it runs: help is there at once, though Dask, scikit-learn and zarr take seconds.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import warnings
from functools import partial
from typing import Annotated, Any, NoReturn, TextIO

import typer
from rich.console import Console

from altmin_dask import __version__
from altmin_dask.cli_help import Command, Commands, advised
from altmin_dask.cli_inference import evaluate_command, predict_command
from altmin_dask.cli_init import init_command
from altmin_dask.cli_options import (
    ChunkRowsOption,
    CsvOption,
    DatesOption,
    DropOption,
    DtypeOption,
    HandleUnknownOption,
    JsonOption,
    LikeOption,
    MaxCategoriesOption,
    MinFrequencyOption,
    MissingOption,
    OriginOption,
    OverridesArgument,
    OverwriteOption,
    PipelineArgument,
    PrefixOption,
    RunArgument,
    ScaleOption,
    SchedulerFileOption,
    SchedulerOption,
    SeedOption,
    SettingsOption,
    ShuffleOption,
    SourceArgument,
    StandardizeOption,
    XOption,
    YOption,
    joined,
    scheduler_at,
    sets,
)
from altmin_dask.cli_settings import settings_command
from altmin_dask.errors import (
    AltMinError,
    AltMinWarning,
    ConfigError,
    FaultError,
    RunError,
)
from altmin_dask.folding import folded, line_width

app = typer.Typer(
    name="altmin",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=Commands,
)
app.command("init", cls=Command)(init_command)
app.command("settings", cls=Command)(settings_command)

_INTERRUPTED = 130  # how typer exits on Ctrl-C


def _tell(text: str) -> None:
    """Print a sentence, within the width of the terminal."""
    for line in folded(text, line_width(Console())):
        typer.echo(line)


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


@app.command("ingest", cls=Command)
def ingest_command(
    source: SourceArgument,
    dest: Annotated[str, typer.Argument(metavar="DEST.zarr", help="The sample store to write.")],
    x: XOption = None,
    y: YOption = None,
    scale: ScaleOption = 1.0,
    standardize: StandardizeOption = False,
    dtype: DtypeOption = "float32",
    chunk_rows: ChunkRowsOption = None,
    missing: MissingOption = None,
    handle_unknown: HandleUnknownOption = None,
    max_categories: MaxCategoriesOption = None,
    min_frequency: MinFrequencyOption = None,
    dates: DatesOption = None,
    csv: CsvOption = None,
    drop: DropOption = None,
    like: LikeOption = None,
    shuffle: ShuffleOption = True,
    seed: SeedOption = 0,
    overwrite: OverwriteOption = False,
) -> None:
    """Stream samples from anywhere into a sample store."""
    from altmin_dask.data.description import described, stored
    from altmin_dask.data.find import open_like
    from altmin_dask.data.ingest import ingest
    from altmin_dask.data.open import open_source
    from altmin_dask.display import counted
    from altmin_dask.hints import check_source_first
    from altmin_dask.table_options import ALL, table_settings, words_of

    check_source_first("ingest", source, dest)
    console = Console(stderr=True)
    fills, read = words_of(missing, "--missing", alone=ALL), words_of(csv, "--csv")
    tables = table_settings(fills, handle_unknown, max_categories, min_frequency, dates, read, joined(drop))
    names: dict[str, Any] = {"x": joined(x), "y": joined(y)}
    if like is None:
        opened = open_source(source, **names, **tables)
    else:
        opened, scale = open_like(source, like, names, tables, scale=scale, standardize=standardize)
    with counted(console, f"ingest {source}", opened.rows) as progress:
        store = ingest(
            opened,
            dest,
            scale=scale,
            chunk_rows=chunk_rows,
            overwrite=overwrite,
            standardize=standardize,
            dtype=dtype,
            shuffle=shuffle,
            seed=seed,
            progress=progress,
        )
    for part in described(opened, store, standardize=standardize):
        Console().print(part)
    _tell(stored(store))


@app.command("plan", cls=Command)
def plan_command(
    pipeline: PipelineArgument,
    overrides: OverridesArgument = None,
    scheduler: SchedulerOption = None,
    scheduler_file: SchedulerFileOption = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what training would need, and whether it fits; nothing is computed or written."""
    from altmin_dask.config import load_pipeline
    from altmin_dask.display import table
    from altmin_dask.execution.connect import open_executor, planned_resources
    from altmin_dask.hints import check_pipeline_first
    from altmin_dask.planning.plan import make_plan

    replaced = [*(settings or ()), *(overrides or ())]
    check_pipeline_first("plan", pipeline, overrides or (), *sets(settings), *["--json"] * as_json)
    loaded = load_pipeline(pipeline, replaced)
    if (where := scheduler_at(scheduler, scheduler_file)) is None:
        place = planned_resources(loaded.cluster)
    else:
        with open_executor(loaded.cluster, where) as executor:
            place = executor.resources()
    plan = make_plan(loaded, None, place)
    if as_json:
        typer.echo(json.dumps(plan.numbers()))
    else:
        Console().print(table(f"Plan of {pipeline}", plan.lines()))
    plan.check()


@app.command(cls=Command)
def train(
    pipeline: PipelineArgument,
    overrides: OverridesArgument = None,
    run: Annotated[str | None, typer.Option(metavar="DIR", help="Run folder; by default a new one.")] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in the folder; without --run, with the newest of this pipeline.",
        ),
    ] = False,
    scheduler: SchedulerOption = None,
    scheduler_file: SchedulerFileOption = None,
    settings: SettingsOption = None,
) -> None:
    """Train the network of a pipeline and report on it."""
    from altmin_dask import runs
    from altmin_dask.config import load_pipeline
    from altmin_dask.display import display, logged, tell_commands
    from altmin_dask.execution.allocator import own_process
    from altmin_dask.execution.connect import planned_resources
    from altmin_dask.execution.faults import BY_RESUME
    from altmin_dask.hints import check_pipeline_first, following, longer, resuming
    from altmin_dask.report.writer import ReportWriter
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    console, where = Console(), scheduler_at(scheduler, scheduler_file)
    replaced, at = [*(settings or ()), *(overrides or ())], (scheduler, scheduler_file)
    into = [*(["--run", run] if run else []), *["--resume"] * resume]
    check_pipeline_first("train", pipeline, overrides or (), *sets(settings), *into)
    loaded = load_pipeline(pipeline, replaced)
    folder = RunFolder(local_path(run) if run else runs.default_run(loaded, pipeline, resume))
    again = resuming(pipeline, folder, replaced, *at)
    own_process(planned_resources(loaded.cluster).threads)
    try:
        with display(console) as shown, logged(shown.tell):
            callbacks = [shown, *([ReportWriter(shown.tell)] if loaded.output.report else [])]
            runs.train(loaded, folder, callbacks, resume=resume, scheduler=where, log=shown.tell)
    except KeyboardInterrupt:
        if not folder.started:
            raise
        raise RunError(f"interrupted; go on by `{again}`") from None
    except FaultError as error:
        if not folder.started:
            raise
        raise RunError(str(error).replace(BY_RESUME, f"go on by `{again}`")) from error
    more = longer(pipeline, loaded, folder, replaced, *at)
    tell_commands(console, [*more, *following(loaded, folder)])


app.command("evaluate", cls=Command)(evaluate_command)
app.command("predict", cls=Command)(predict_command)


@app.command(cls=Command)
def report(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN...", help="A run folder that `altmin train` made, or several.")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.html",
            help="The page about several, in place of another one; by default comparison.html here.",
        ),
    ] = None,
) -> None:
    """Write the report of a run, a self-contained HTML page and PNG figures; or one page that compares several."""
    from altmin_dask.report.comparison import DEFAULT, write_comparison
    from altmin_dask.report.page import write_report
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    folders = [RunFolder(local_path(run)) for run in runs]
    if len(folders) > 1:
        typer.echo(str(write_comparison(folders, local_path(to or DEFAULT))))
        return
    if to is not None:
        raise ConfigError("--to is for a page that compares runs; name two or more, or leave it out")
    typer.echo(str(write_report(folders[0])))


@app.command(cls=Command)
def export(
    run: RunArgument,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="FILE.onnx, FILE.pt2 for torch.export.load, or FILE.safetensors with PyTorch's names of weights.",
        ),
    ],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model that was exported.")
    ] = False,
) -> None:
    """Write the trained network for other programs."""
    from altmin_dask.export import described, writer_for
    from altmin_dask.hints import check_run_first
    from altmin_dask.inference import model_of
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    check_run_first("export", run, file)
    model, path = model_of(RunFolder(local_path(run))), local_path(file)
    writer_for(path, overwrite=overwrite)(model, path)
    _tell(f"{path}: {described(model)}")


@app.command(cls=Command)
def dashboard(
    run: RunArgument,
    address: Annotated[
        str,
        typer.Option(metavar="HOST", help="Where to listen; 0.0.0.0 lets other machines open the page."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="0 for any that is free.")] = 5006,
    prefix: PrefixOption = "",
    allow_websocket_origin: OriginOption = None,
) -> None:
    """Serve the page of a run, as it is in the Dask dashboard: live, or after the fact."""
    from altmin_dask.dashboard.server import serve
    from altmin_dask.storage.locations import local_path
    from altmin_dask.storage.run import RunFolder

    how: dict[str, Any] = {"prefix": prefix, "origins": allow_websocket_origin or ()}
    serve(RunFolder(local_path(run)), address, port, typer.echo, **how)


def main() -> None:
    """Run the command line: whatever goes wrong ends in one sentence and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what is half-written goes then, too
    warnings.showwarning = partial(_warn, set())
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
        _fail(_of_system(error) if error.filename else error, 2)
    except OSError as error:
        _fail(_of_system(error), 1)
    except SystemExit as end:
        if end.code != _INTERRUPTED:
            raise
        _fail("interrupted", 1)
    except Exception as error:
        if os.environ.get("ALTMIN_DEBUG"):
            raise
        _fail(f"{type(error).__name__}: {error} (ALTMIN_DEBUG=1 shows where)", 1)


def _of_system(error: OSError) -> str:
    """What the system says of a file, and what to do."""
    from altmin_dask.execution.faults import sentence

    return sentence(error, "a file")


def _is_critical(record: logging.LogRecord) -> bool:
    """Let a lost scheduler end in our sentence alone; Dask sets levels when it is imported, and leaves filters."""
    return record.levelno >= logging.CRITICAL


def _warn(
    said: set[str],
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Show our own warnings as a sentence, once in a command, those of libraries as Python does."""
    if issubclass(category, AltMinWarning):
        if str(message) in said:
            return
        said.add(str(message))
        typer.echo(f"altmin: warning: {advised(str(message))}", err=True)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


def _fail(message: object, code: int) -> NoReturn:
    lines = (line.strip() for line in str(message).splitlines())  # spaces in them may be those of a path
    typer.echo(f"altmin: {' '.join(line for line in lines if line)}", err=True)
    sys.exit(code)
