"""``pipeline.json`` of a run folder: what was asked for, what followed from it, and the run's mark."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from altmin_dask.errors import ConfigError, DataError, ExistsError, MissingError
from altmin_dask.storage.atomic import missing_folders, write_json
from altmin_dask.storage.fingerprints import replaced
from altmin_dask.storage.json_files import differences, read_json
from altmin_dask.storage.locations import filesystem_of, is_url, locate
from altmin_dask.storage.remote import explained_errors
from altmin_dask.storage.what import MANIFEST, not_a_run
from altmin_dask.storage.writable import check_writable, making


@dataclass(frozen=True)
class Manifest:
    """The manifest of a run folder.

    Attributes
    ----------
    folder : Path
        The run folder.
    """

    folder: Path

    @property
    def exists(self) -> bool:
        """Whether there is one: whether the folder is that of a run."""
        return self.file.exists()

    def read(self) -> dict[str, Any]:
        """All that `write` wrote.

        Raises
        ------
        MissingError
            If there is none.
        DataError
            If it is damaged.
        """
        if not self.exists:
            raise MissingError(not_a_run(self.folder))
        return read_json(self.file)

    def write(
        self,
        pipeline: Mapping[str, Any],
        identity: Mapping[str, Any],
        *,
        started: bool = False,
        z: str | None = None,
        changed: Mapping[str, Any] | None = None,
        resolved: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        stores: Mapping[str, str | None] | None = None,
        shapes: Mapping[str, Any] | None = None,
        fingerprints: Mapping[str, Mapping[str, str]] | None = None,
        whereabouts: Mapping[str, Any] | None = None,
    ) -> None:
        """Write down what the run is: its settings at once, the rest as soon as it is known.

        Parameters
        ----------
        pipeline, identity : mapping
            All settings, and those that must not change, JSON-ready.
        started : bool
            Whether a state has been committed.
        z : str, optional
            Folder or URL under which z is kept, if not in the run folder; the first time decides.
        changed, resolved, settings : mapping, optional
            What was changed, and what open settings came to, by ``table.key``; `resolved` is the latter as run.
        stores : mapping, optional
            Paths of the sample stores by role; those inside the folder move with it.
        shapes : mapping, optional
            What follows from the samples and must not change either.
        fingerprints : mapping, optional
            Of the stores, by role (`altmin_dask.storage.fingerprints`): their values must not change.
        whereabouts : mapping, optional
            When and where it is trained; added to those of earlier starts.

        Raises
        ------
        DataError
            If there are committed states of other shapes or samples, or nothing can be kept at `z`.
        MissingError, ConfigError
            If there is no file system of the kind of `z`, or a file in its place.
        StorageError
            If the file, or anything at `z`, cannot be written.
        """
        old = self.read() if self.exists else {}
        own, z = old.get("id") or uuid.uuid4().hex, old.get("z") or z
        if z is not None and not old:
            z = _inside(z, own)
        shapes = json.loads(json.dumps(shapes))
        if started:
            self._check_samples(old, shapes, fingerprints or {})
        self.folder.mkdir(parents=True, exist_ok=True)
        follows = {"resolved": resolved, "settings": settings, "shapes": shapes, "fingerprints": fingerprints}
        follows["stores"] = self._movable(stores) if stores else None
        content = {**_first(changed, old, own), "identity": identity, "pipeline": pipeline, "z": z}
        content |= {name: value or old.get(name) for name, value in follows.items()}
        content["whereabouts"] = _added(old.get("whereabouts") or [], whereabouts)
        with making(self.file):
            write_json(self.file, content)

    def pipeline(self) -> dict[str, Any]:
        """The pipeline the run was made with.

        Raises
        ------
        MissingError
            If there is no manifest.
        DataError
            If it is damaged.
        """
        settings = self.read().get("pipeline")
        if not isinstance(settings, dict):
            raise DataError(f"{self.file} is damaged: it has no pipeline")
        return settings

    def resolved(self) -> dict[str, Any]:
        """What is run where the pipeline leaves it open, as far as it is known.

        Raises
        ------
        MissingError
            If there is no manifest.
        """
        return self.read().get("resolved") or {}

    def settings(self) -> dict[str, Any]:
        """What every setting came to that the pipeline leaves open, by ``table.key``; empty in older runs.

        Raises
        ------
        MissingError
            If there is no manifest.
        """
        return self.read().get("settings") or {}

    def stores(self) -> dict[str, str]:
        """Paths or URLs of the sample stores the run uses, by role: "train", "validation".

        Raises
        ------
        MissingError
            If there is no manifest.
        """
        stores, home = self.read().get("stores") or {}, self.folder.absolute()
        return {role: path if is_url(path) else str(home / path) for role, path in stores.items() if path}

    def shapes(self) -> dict[str, Any]:
        """Rows, rows of a chunk and widths of the network, as far as they are known.

        Raises
        ------
        MissingError
            If there is no manifest.
        """
        return self.read().get("shapes") or {}

    def whereabouts(self) -> list[dict[str, Any]]:
        """When and where it was trained, from the first start on; empty where nobody wrote it down.

        Raises
        ------
        MissingError
            If there is no manifest.
        """
        return self.read().get("whereabouts") or []

    @property
    def file(self) -> Path:
        """Where it is."""
        return self.folder / MANIFEST

    def _check_samples(
        self,
        old: Mapping[str, Any],
        shapes: Mapping[str, Any] | None,
        now: Mapping[str, Mapping[str, str]],
    ) -> None:
        """Refuse samples that took the place of those of committed states: the best model would be that of others."""
        if shapes is not None and (different := differences(old.get("shapes"), shapes)):
            raise DataError(
                f"the samples are not those that run folder {self.folder} was begun with "
                f"({'; '.join(different)}); give another --run"
            )
        for role, before in (old.get("fingerprints") or {}).items():
            if names := replaced(before, now.get(role, {})):
                raise DataError(
                    f"{' and '.join(names)} of the samples for {role if role == 'validation' else 'training'} in "
                    f"{old['stores'][role]} were replaced since run folder {self.folder} was begun; put back what was "
                    "there, or train on the new samples in another --run"
                )

    def _movable(self, stores: Mapping[str, str | None]) -> dict[str, str | None]:
        """Paths inside the folder from there on."""
        home = self.folder.absolute()
        return {
            role: str(Path(path).relative_to(home)) if path and Path(path).is_relative_to(home) else path
            for role, path in stores.items()
        }


def _first(changed: Mapping[str, Any] | None, old: Mapping[str, Any], own: str) -> dict[str, Any]:
    """What stands first: the settings that were changed, which older runs have not, and the run's mark."""
    changed = old.get("changed") if changed is None else changed
    return {"id": own} if changed is None else {"changed": dict(changed), "id": own}


def _added(before: list[dict[str, Any]], now: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Whereabouts with those of another start, if they differ: resuming what has ended changes nothing."""
    if now is None or (before and {**before[-1], "date": now.get("date")} == dict(now)):
        return before
    return [*before, dict(now)]


def _inside(z: str, own: str) -> str:
    """A name below a place for z that no other run has: two may be told the same place."""
    location = locate(z).rstrip("/")
    if is_url(location):
        with explained_errors(location, "written"):
            filesystem_of(location)
    else:
        try:
            missing = missing_folders(Path(location))
        except ExistsError as error:
            raise ConfigError(f"nothing can be kept at {location} (output.z): {error}") from None
        check_writable(missing[-1] if missing else Path(location) / own)
    return f"{location}/{own}"
