"""The report of a run: figures as PNG files, and one self-contained HTML page with everything in it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined, Template
from matplotlib.figure import Figure

from altmin_dask.data.labels import numbered
from altmin_dask.data.sample_store import SampleStore
from altmin_dask.errors import ExistsError, MissingError
from altmin_dask.format import setting
from altmin_dask.report import figures
from altmin_dask.report.columns import layer_columns
from altmin_dask.report.figures import COLUMNS, DARK, LIGHT, Theme
from altmin_dask.report.images import as_images
from altmin_dask.report.summary import history_table, summary_table
from altmin_dask.storage.atomic import write_text
from altmin_dask.storage.model import Model
from altmin_dask.storage.ownership import PRODUCER
from altmin_dask.storage.run import RunFolder
from altmin_dask.training.defaults import left_open
from altmin_dask.training.record import Record, read_records
from altmin_dask.types import Array

_PICTURES = ("convergence", "residuals", "feasibility", "reconstructions", "predictions")
_MARKS = b"Software\0" + PRODUCER.encode(), b'name="generator" content="' + PRODUCER.encode() + b'"'
_HEAD = 512


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Attributes
    ----------
    name : str
        Of its file, without ``.png``.
    heading, caption : str
        What stands above and below it.
    draw : callable
        Makes it for a theme.
    """

    name: str
    heading: str
    caption: str
    draw: Callable[[Theme], Figure]


def write_report(run: RunFolder) -> Path:
    """Write ``RUN/report/``: a self-contained page, and its figures as PNG files.

    Parameters
    ----------
    run : RunFolder
        A run with a record and a model; it may still be going on.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    MissingError
        If it is not a run folder, or has no records or no model yet.
    DataError
        If its files are damaged.
    ExistsError
        If there are other files by the names of the report's.
    """
    settings = run.manifest.pipeline()
    records = read_records(run)
    if not records:
        raise MissingError(
            f"{run.path} has no records to report on; go on with it by `altmin train --resume`"
        )
    model = Model.load(run.model)

    pictures, notes = _curves(records), []
    try:
        pictures += _samples(run, model)
    except _NoPictureError as error:
        notes.append(str(error))
    run.report.mkdir(exist_ok=True)
    page_file = run.report / "report.html"
    _check_own(page_file)
    shown, name = _draw(run.report, pictures), run.path.resolve().name
    head, rows = history_table(records)
    page = _template().render(
        title=settings.get("output", {}).get("title") or name,
        folder=name,
        performance="performance.html" if (run.report / "performance.html").exists() else "",
        network=f"{'-'.join(map(str, model.network.sizes))} {model.kind}",
        summary=summary_table(records),
        pictures=shown,
        notes=notes,
        settings=_settings(settings, run.manifest.resolved()),
        head=head,
        rows=rows,
    )
    # a folder's name may hold bytes that are no text
    write_text(page_file, page.encode("utf-8", "replace").decode("utf-8"))
    return page_file


def _draw(folder: Path, pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Write the pictures, in place of all of an earlier report, and give what the page shows of them."""
    drawings = {name: folder / f"{name}.png" for name in _PICTURES}
    for file in drawings.values():
        _check_own(file)
    for file in drawings.values():  # of an earlier report, of another model
        file.unlink(missing_ok=True)
    shown = []
    for picture in pictures:
        light, dark = figures.png(picture.draw, LIGHT), figures.png(picture.draw, DARK)
        drawings[picture.name].write_bytes(light)
        shown.append({"about": picture, "light": _encode(light), "dark": _encode(dark)})
    return shown


def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = files("altmin_dask.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(text)


def _check_own(file: Path) -> None:
    """Refuse to replace what is not of an earlier report, which says so at its beginning.

    Raises
    ------
    ExistsError
        If there is something else, or a link.
    """
    if not os.path.lexists(file):
        return
    head = file.read_bytes()[:_HEAD] if file.is_file() and not file.is_symlink() else b""
    if not any(mark in head for mark in _MARKS):
        raise ExistsError(f"{file} is not of a report, so it is not replaced; move it away")


# --- pictures


class _NoPictureError(Exception):
    """Samples cannot be shown; the message says why."""


def _curves(records: Sequence[Record]) -> list[Picture]:
    pictures = [
        Picture(
            "convergence",
            "Convergence",
            "Losses are on a logarithmic scale. The nested and the validation loss are those of the network "
            "itself; the relaxed objective is what training makes small.",
            partial(figures.convergence, records),
        )
    ]
    if figures.has_residuals(records):
        pictures.append(
            Picture(
                "residuals",
                "Residuals",
                "How far the pre-activations of each layer are from what the layer below makes them in the "
                "network, on a logarithmic scale.",
                partial(figures.residuals, records),
            )
        )
    if figures.has_feasibility(records):
        about = (
            "The residuals of each layer relative to its pre-activations, on a logarithmic scale: at zero the "
            "relaxed network is the real one, and the relaxed objective without its ridge is the nested loss."
        )
        if np.isfinite(layer_columns(r.zero_residuals for r in records)).any():
            about += " Of L1 also the share of residuals that are exactly zero."
        pictures.append(Picture("feasibility", "Feasibility", about, partial(figures.feasibility, records)))
    return pictures


def _samples(run: RunFolder, model: Model) -> list[Picture]:
    """Show outputs for the first samples of the validation store, or else of the training store."""
    if model.kind not in ("autoencoder", "classifier"):
        return []
    what = "reconstructions" if model.kind == "autoencoder" else "predictions"
    stores = run.manifest.stores()
    role = "validation" if "validation" in stores else "train"
    path = stores.get(role)
    if not path:
        raise _NoPictureError(f"No {what}: the run folder does not say which samples were used.")
    try:
        store = SampleStore.open(path)
        x = np.asarray(store.x[: 4 * COLUMNS])
        y = None if store.y is None else np.asarray(store.y[: 4 * COLUMNS])
    except Exception as error:  # storage anywhere may fail in any way, which must not cost the rest
        raise _NoPictureError(f"No {what}: the samples cannot be read ({error}).") from error
    if store.features != model.network.sizes[0]:
        raise _NoPictureError(f"No {what}: {path} no longer holds the samples that were used.")

    source = f"The first samples of the {'validation' if role == 'validation' else 'training'} store {path}"
    outputs, images = model.outputs(x), as_images(x, store.sample_shape)
    if model.kind == "autoencoder":
        return [_reconstructions(x, outputs, images, store.sample_shape, source)]
    if y is None:
        raise _NoPictureError(f"No {what}: {path} has no labels.")
    if images is None:
        return []
    places = y.astype(np.int64) if model.labels is None else numbered(y, model.labels)
    predicted, how = outputs.argmax(axis=1), model.preparation
    caption = f"{source}: {np.count_nonzero(predicted == places)} of {len(y)} are right."
    names = np.arange(outputs.shape[1]) if how is None or how.classes is None else np.array(how.classes)
    draw = partial(figures.predictions, images, names[predicted], names[places])
    return [Picture("predictions", "Predictions", caption, draw)]


def _reconstructions(
    x: Array, outputs: Array, images: Array | None, sample_shape: tuple[int, ...], source: str
) -> Picture:
    draw: Callable[[Theme], Figure]
    if images is None:
        flat = x.reshape(len(x), -1)
        draw = partial(figures.reconstruction_curves, flat[:COLUMNS], outputs[:COLUMNS])
        caption = f"{source}, and what the network makes of them."
    else:
        made = as_images(outputs, sample_shape)
        assert made is not None  # it depends on the shape alone
        shown = 2 * COLUMNS
        draw = partial(figures.reconstruction_images, images[:shown], made[:shown])
        caption = f"{source}, each above what the network makes of it."
    return Picture("reconstructions", "Reconstructions", caption, draw)


def _encode(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


# --- tables


def _settings(
    settings: Mapping[str, Any], resolved: Mapping[str, Any]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """List the tables of a pipeline, each with (key, value) pairs, and what was run where it left something open."""
    tables = {name: dict(entries) for name, entries in settings.items() if isinstance(entries, Mapping)}
    shown = {
        table: {key: setting(value) for key, value in entries.items()} for table, entries in tables.items()
    }
    for table, key, value in left_open(settings, resolved):
        shown.setdefault(table, {})[key] = f"{setting(value)} (by default)"
    return [(table, list(entries.items())) for table, entries in shown.items()]
