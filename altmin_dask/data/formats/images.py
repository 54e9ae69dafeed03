"""A folder of images of equal size as samples; folders in it are classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from altmin_dask.data.formats.base import SourceOptions, SourceSpec, in_order
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.streams import sliced
from altmin_dask.errors import AltMinError, DataError, MissingError, warn
from altmin_dask.preparation import Preparation
from altmin_dask.storage.locations import local_path
from altmin_dask.storage.remote import reason
from altmin_dask.storage.zarr_groups import is_zarr_folder
from altmin_dask.types import Array

if TYPE_CHECKING:
    import pandas as pd

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
_USUAL = (".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".jxl", ".svg")
_SPECIAL = (".pgm", ".ppm", ".pbm", ".tga", ".dng", ".cr2", ".nef", ".arw", ".dcm")
_OTHERS = _USUAL + _SPECIAL
"""Endings of images that are not read."""
FILE = "file"
"""The column of predictions that says which image a row is of."""
_NAMES = 10_000
"""Names in a part of that column."""
_MODES = {"1": "L", "LA": "L"} | dict.fromkeys(("P", "CMYK", "PA", "RGBA", "YCbCr", "HSV", "RGBX"), "RGB")
"""What images of Pillow's other modes are read as."""
_TRANSPARENT = ("LA", "PA", "RGBA")
"""Modes with a channel that is left out; images of others may have a colour that is transparent."""
_DEEP = {
    "I;16": np.uint16,
    "I;16L": np.uint16,
    "I;16B": np.uint16,
    "I;16N": np.uint16,
    "I": np.int32,
    "F": np.float32,
}
"""Grey images of more than 8 bits, which are read as they are: Pillow would cut their values off at 255."""


class ImageFormat:
    """Images of equal size, whose classes are the folders they lie in."""

    known_as = "a folder of images"

    def matches(self, spec: SourceSpec) -> bool:
        """Tell by the names of the files."""
        return spec.folder is not None and bool(images_of(spec.folder))

    def open(self, spec: SourceSpec, options: SourceOptions) -> Source:
        """Read the header of every file."""
        spec.refuse_split()
        options.refuse_names(spec.base)
        return read_images(spec.name, local_path(spec.base), options.like)

    def columns(
        self, spec: SourceSpec, chosen: Sequence[str], csv: Mapping[str, Any] | None = None
    ) -> tuple[list[str], Iterator[pd.DataFrame]]:
        """The only column there is, `FILE`: the files' names within the folder, in the order that samples have.

        Raises
        ------
        DataError
            If another one is wanted.
        """
        if unknown := [name for name in chosen if name != FILE]:
            raise DataError(
                f"{spec.name} is a folder of images, which have no column {unknown[0]!r}; there is {FILE!r}, their "
                "names, which is written anyway"
            )
        return [FILE], _names_of(local_path(spec.base))


def _names_of(folder: Path) -> Iterator[pd.DataFrame]:
    import pandas as pd

    files = [file for some in images_of(folder).values() for file in some]
    for start in range(0, len(files), _NAMES):
        names = [file.relative_to(folder).as_posix() for file in files[start : start + _NAMES]]
        yield pd.DataFrame({FILE: names})


def images_of(folder: Path) -> dict[str, list[Path]]:
    """The images of every class, in order; of those that lie in the folder itself, the class is "".

    Their order is that of the numbers in their names, as of tables; that of classes is as of all text.
    What is hidden is no image of the user's, as copies of editors and systems are.
    """
    found = {sub.name: _files(sub, ENDINGS) for sub in _classes(folder)}
    return {name: files for name, files in {"": _files(folder, ENDINGS), **found}.items() if files}


def read_images(name: str, folder: Path, like: Preparation | None = None) -> Source:
    """Read images as x of shape (rows, height, width), or (rows, height, width, 3) if any of them is coloured.

    Values are 0 to 255, or what grey images of 16 or 32 bits have.

    Parameters
    ----------
    name : str
        What messages call them.
    folder : Path
        Where they are; where they lie in folders of their own, these are the classes.
    like : Preparation, optional
        With the classes of earlier images, and whether these were coloured: then grey ones are read in colour.

    Raises
    ------
    DataError
        If sizes or depths differ, a file is no image, there is a class that was not there, or images lie below classes.
    MissingError
        If Pillow is not installed.

    Warns
    -----
    AltMinWarning
        If some are grey beside coloured ones, or all are where those for training were coloured, transparency or all
        frames but the first are left out, or there are files of other kinds of images.
    """
    found = images_of(folder)
    _check_classes(name, found)
    _check_below(name, folder)
    files = [file for some in found.values() for file in some]
    shape, mode = _common(name, files, coloured=like is not None and like.coloured)

    def blocks(rows: int) -> Iterator[Array]:
        for start in range(0, len(files), rows):
            yield np.stack([_pixels(file, mode) for file in files[start : start + rows]])

    x = RowReader(
        f"the folder of images {folder}", (len(files), *shape), np.dtype(_DEEP.get(mode, np.uint8)), blocks
    )
    how = Preparation(coloured=mode == "RGB")
    if "" in found:
        return Source(name, x, preparation=how if how.coloured else None)
    classes = tuple(found) if like is None or like.classes is None else like.classes
    if unknown := [label for label in found if label not in classes]:
        raise DataError(f"{name} has the class {unknown[0]!r}, which the data for training had not")
    labels = np.repeat([classes.index(label) for label in found], [len(some) for some in found.values()])
    return Source(
        name,
        x,
        sliced(labels.astype(np.int64), f"classes of {folder}"),
        preparation=replace(how, classes=classes),
    )


@dataclass(frozen=True)
class _Header:
    """What a file says of its image before any pixel is read.

    Attributes
    ----------
    shape : tuple of int
        Height and width.
    mode : str
        What it is read as: "RGB", "L", or a grey mode of more than 8 bits.
    transparent, several : bool
        Whether transparency, or frames or pages behind the first one, are left out.
    """

    shape: tuple[int, int]
    mode: str
    transparent: bool
    several: bool


def _common(name: str, files: list[Path], coloured: bool) -> tuple[tuple[int, ...], str]:
    """The shape and the mode that all images are read with; in colour where some are, or those before them were."""
    first = _header(files[0])
    counts: Counter[str] = Counter()
    for file in files:
        header = _header(file)
        counts["coloured"] += header.mode == "RGB"
        counts["transparent"] += header.transparent
        counts["several"] += header.several
        if header.shape != first.shape:
            (height, width), (its_height, its_width) = first.shape, header.shape
            raise DataError(
                f"{file} has {its_width}×{its_height} pixels and {files[0].name} has {width}×{height}; "
                "bring all images to the same size"
            )
        if header.mode != first.mode and (header.mode in _DEEP or first.mode in _DEEP):
            raise DataError(
                f"{file} has pixels of the kind {header.mode!r} and {files[0].name} of {first.mode!r}; bring all "
                "images to the same depth"
            )
    in_colour = counts["coloured"] > 0 or (coloured and first.mode == "L")
    _tell(name, counts, len(files), in_colour)
    return ((*first.shape, 3), "RGB") if in_colour else (first.shape, first.mode)


def _classes(folder: Path) -> list[Path]:
    """The folders in it that may have images."""
    return [
        sub
        for sub in sorted(folder.iterdir())
        if sub.is_dir() and sub.name[0] != "." and not is_zarr_folder(sub)
    ]


def _files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    found = (
        file
        for file in folder.iterdir()
        if file.suffix.lower() in endings and file.name[0] != "." and file.is_file()
    )
    return sorted(found, key=in_order)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An image; whatever Pillow says of it, also later where it was cut short, names the file."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingError(f"{file} cannot be read; `pip install 'altmin-dask[images]'`") from None
    try:
        with Image.open(file) as image:
            yield image
    except AltMinError:
        raise
    except Exception as error:
        raise DataError(f"{file} cannot be read as an image: {reason(error)}") from error


def _header(file: Path) -> _Header:
    with _opened(file) as image:
        mode = _MODES.get(image.mode, image.mode)
        if mode not in ("RGB", "L", *_DEEP):
            raise DataError(
                f"{file} has pixels of the kind {mode!r}, which cannot be used; save it in RGB or grey"
            )
        transparent = image.mode in _TRANSPARENT or "transparency" in image.info
        # what cameras write behind a JPEG (MPO) is a preview of it
        several = image.format != "MPO" and getattr(image, "n_frames", 1) > 1
        return _Header((image.height, image.width), mode, transparent, several)


def _tell(name: str, counts: Counter[str], files: int, in_colour: bool) -> None:
    """Tell of images that are not read as they are."""
    coloured = counts["coloured"]
    if 0 < coloured < files:
        warn(
            f"{name} has {files - coloured} grey images beside {coloured} coloured ones: all are read in colour"
        )
    elif in_colour and not coloured:
        warn(f"{name} has grey images, and those for training were coloured: they are read in colour")
    if counts["transparent"]:
        warn(f"{name} has {counts['transparent']} images with transparency, which is left out")
    if counts["several"]:
        warn(
            f"{name} has {counts['several']} files with several frames or pages, of which only the first is read; save "
            "each as a file if they are samples"
        )


def _pixels(file: Path, mode: str) -> Array:
    with _opened(file) as image:
        image.info.pop("transparency", None)  # which is told of already, and of which Pillow warns here
        return np.asarray(image if image.mode == mode else image.convert(mode), _DEEP.get(mode, np.uint8))


def _check_classes(name: str, found: dict[str, list[Path]]) -> None:
    """Refuse images that lie beside classes of them."""
    if "" in found and len(found) > 1:
        raise DataError(
            f"{name} has images beside folders of images ({next(filter(None, found))}, …), which are classes; move the "
            "former into one, or elsewhere"
        )


def _check_below(name: str, folder: Path) -> None:
    """Refuse images that lie deeper than those of classes, and tell of images of other kinds: none of them is read."""
    others = _files(folder, _OTHERS)
    for sub in _classes(folder):
        for place, inside, _ in os.walk(sub):
            here = Path(place)
            # stores may have very many files
            inside[:] = sorted(each for each in inside if each[0] != "." and not is_zarr_folder(here / each))
            others += _files(here, _OTHERS)
            if here != sub and (deeper := _files(here, ENDINGS)):
                raise DataError(
                    f"{name} has images in folders below those of its classes ({deeper[0].relative_to(folder)}, …), "
                    "which would not be read; move them into the folder of their class, or elsewhere"
                )
    if others:
        warn(
            f"{name} has {len(others)} files of images that are not read ({others[0].relative_to(folder)}, …), as "
            f"their names do not end in {', '.join(ENDINGS)}; save them so, or move them elsewhere"
        )
