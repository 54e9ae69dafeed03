"""Writes pages and pictures: self-contained, and never over a file that is not of a report."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from altmin_dask.errors import ExistsError
from altmin_dask.report.pictures import Section
from altmin_dask.report.style import DARK, LIGHT, png
from altmin_dask.storage.atomic import write_text
from altmin_dask.storage.ownership import PRODUCER

_MARKS = b"Software\0" + PRODUCER.encode(), b'name="generator" content="' + PRODUCER.encode() + b'"'
_HEAD = 512


def draw(
    sections: Sequence[Section], folder: Path | None = None, names: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Draw all pictures, and give what a page shows of them.

    Parameters
    ----------
    sections : sequence of Section
        With pictures to be drawn, light and dark.
    folder : path, optional
        Where the light ones are written, too, in place of all of an earlier report.
    names : sequence of str
        Of all files that an earlier report may have left there, without ``.png``.

    Raises
    ------
    ExistsError
        If there are others by their names; nothing is written or removed then.
    """
    files = {} if folder is None else {name: folder / f"{name}.png" for name in names}
    for file in files.values():
        check_own(file)
    for file in files.values():  # of an earlier report, of another model
        file.unlink(missing_ok=True)
    shown = []
    for section in sections:
        pictures = []
        for picture in section.pictures:
            light, dark = png(picture.draw, LIGHT), png(picture.draw, DARK)
            if folder is not None:
                files[picture.name].write_bytes(light)
            pictures.append({"about": picture, "light": _encode(light), "dark": _encode(dark)})
        shown.append(
            {
                "heading": section.heading,
                "pictures": pictures,
                "notes": section.notes,
                "tables": section.tables,
            }
        )
    return shown


def write_page(file: Path, template: str, **content: Any) -> Path:
    """Write a page from a template of this package; gives its file."""
    environment = Environment(
        loader=PackageLoader("altmin_dask", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    page = environment.get_template(template).render(**content)
    # a folder's name may hold bytes that are no text
    write_text(file, page.encode("utf-8", "replace").decode("utf-8"))
    return file


def breakable(text: str) -> Markup:
    """A name or path that may be broken after dots, slashes and underscores, too; numbers are not."""
    return Markup(re.sub(r"([._/])(?=[^\W\d])", r"\1<wbr>", str(escape(text))))


def check_own(file: Path) -> None:
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


def _encode(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
