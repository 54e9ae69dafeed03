"""What is ours to remove: folders that carry our mark, and in them only the files that we write there.

Nothing is removed because of where it is. A folder is replaced if a file in it says that we wrote it and nothing else
is in it; files are removed one by one, by the names we give them, and folders when they are empty.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altmin_dask.errors import ExistsError
from altmin_dask.storage.locations import files_below, is_url, read_bytes, remove_empty_folder, remove_files

PRODUCER = "altmin-dask"
"""What files for people and other programs name as their producer."""
KEY = "altmin"
"""The attribute of zarr groups and arrays that says they are ours."""


@dataclass(frozen=True)
class Layout:
    """A kind of folder that we write.

    Attributes
    ----------
    what : str
        What it is, for messages, with who writes it.
    mark : str
        The JSON file that says so.
    says : callable
        Whether the content of the mark does say so.
    files : re.Pattern
        Names of all files it may hold, from the folder, also of those that are half-written.
    """

    what: str
    mark: str
    says: Callable[[dict[str, Any]], bool]
    files: re.Pattern[str]

    def check(self, folder: str, called: str = "") -> None:
        """Refuse to replace a folder that is not ours, or in which somebody has put something.

        Parameters
        ----------
        folder : str
            Where it is.
        called : str
            What messages call it, if that is another name.

        Raises
        ------
        ExistsError
            If it may not be replaced.
        """
        called = called or folder
        if not self.marked(folder):
            raise ExistsError(
                f"{called} exists and is not {self.what}, so it is never replaced; give another path"
            )
        for name, plain in files_below(folder):
            if not (plain and self.files.fullmatch(name)):
                raise ExistsError(
                    f"{called} is not replaced, as {name} in it was not written with it; move that away, or give "
                    "another path"
                )

    def marked(self, folder: str) -> bool:
        """Whether a folder says that we wrote it."""
        try:
            content = json.loads(read_bytes(f"{folder}/{self.mark}"))
        except (OSError, ValueError):
            return False
        return isinstance(content, dict) and self.says(content)

    def remove(self, folder: str) -> None:
        """Remove the files of a folder that says it is ours, the mark last, and what folders are empty then."""
        if not self.marked(folder):
            return
        remove_ours(folder, self.files, last=self.mark)
        remove_empty_folder(folder)


def remove_ours(folder: str, files: re.Pattern[str], last: str = "") -> None:
    """Remove the files below a folder whose whole names match, and the folders in it that they were in, if empty.

    Links are left alone, and so is all behind them.
    """
    if not is_url(folder) and os.path.islink(folder):
        return
    names = [name for name, plain in files_below(folder) if plain and files.fullmatch(name)]
    remove_files(folder, [name for name in names if name != last])
    remove_files(folder, [name for name in names if name == last])
    if not is_url(folder):
        parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
        for parent in sorted(parents, key=lambda path: len(path.parts), reverse=True):
            remove_empty_folder(os.path.join(folder, parent))


def own_attributes(content: dict[str, Any]) -> dict[str, Any]:
    """What we have noted in the ``zarr.json`` of a group or array; nothing if it is not ours."""
    attributes = content.get("attributes")
    own = attributes.get(KEY) if isinstance(attributes, dict) else None
    return own if isinstance(own, dict) else {}


def store_files(*arrays: str) -> re.Pattern[str]:
    """Names of the files of a zarr group of some arrays, as zarr writes them."""
    names, half = "|".join(arrays), r"[0-9a-f]+\.partial"
    return re.compile(rf"(({names})/)?zarr\.(json|{half})|({names})/c(/\d+)+(\.{half})?")
