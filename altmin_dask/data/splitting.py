"""Samples divided into those to train on and those held out: at random, of every class its share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from altmin_dask.data.labels import distinct, listed
from altmin_dask.data.readers import RowReader
from altmin_dask.data.source import Source
from altmin_dask.data.streams import regrouped
from altmin_dask.data.tables.parts import numbered
from altmin_dask.errors import ConfigError, DataError
from altmin_dask.types import Array

PIECE = 1000
"""Rows, of a class, within each of which the same share is held out."""
_BLOCK = 64 * PIECE
Masks = Callable[[], Iterator[Array]]
"""Gives which rows are held out, a piece of all samples after the other."""


def split(
    source: Source,
    fraction: float,
    seed: int,
    *,
    setting: str,
    otherwise: str,
    stratified: bool = False,
    names: Sequence[Any] | None = None,
) -> tuple[Source, Source]:
    """Divide samples into those to train on and those held out, drawn at random from every thousand rows.

    Both parts read the whole source, block by block, and keep its order; messages on them count their own rows. The
    same samples, fraction and seed give the same parts.

    Parameters
    ----------
    source : Source
        The samples.
    fraction : float
        The share to hold out, between 0 and 1.
    seed : int
        What is drawn follows from it.
    setting, otherwise : str
        What messages call the fraction, and what to do instead.
    stratified : bool
        Whether every class, a value of y, (rows,), has its share among those held out, up to one sample. The labels are
        read through twice, and a bit is kept for every row.
    names : sequence, optional
        What messages call the classes 0, 1, …, if the preparation of the samples does not say.

    Raises
    ------
    ConfigError
        If a part would be empty.
    DataError
        If there are classes of a single sample, or more than samples are held out.
    """
    count = held_out(source.rows, fraction)
    if not 0 < count < source.rows:
        raise ConfigError(
            f"{setting} = {fraction} of {source.rows} samples leaves no sample to "
            f"{'train on' if count else 'hold out'}; give another, or {otherwise}"
        )
    masks = partial(_masks, source.rows, fraction, seed)
    if stratified and source.y is not None:
        if names is None and source.preparation is not None:
            names = source.preparation.classes
        packed = _stratified(source.y, count, seed, f"{setting} = {fraction}", otherwise, names)
        masks = partial(_unpacked, packed, source.rows)

    return _divided(source, masks, False, source.rows - count), _divided(source, masks, True, count)


def _divided(source: Source, masks: Masks, held: bool, size: int) -> Source:
    """The samples that are held out, or that are not."""
    part = Source.of(
        f"the part of {source.name} {'held out' if held else 'to train on'}",
        {name: _part(reader, masks, held, size) for name, reader in source.arrays.items()},
        source.preparation,
    )
    where = source.where

    def found(rows: Sequence[int]) -> str:
        mask = np.concatenate(list(masks()))  # of a message only
        own = np.flatnonzero(mask == held)[list(rows)].tolist()
        return f"{numbered('row', own)} of all" if where is None else where(own)

    return replace(
        part,
        scale=source.scale,
        rounded=source.rounded,
        stored=source.stored,
        mean_weight=source.mean_weight,
        reading_bytes=source.reading_bytes,
        where=found,
    )


def _part(reader: RowReader, masks: Masks, held: bool, size: int) -> RowReader:
    """The rows of an array that are held out, or that are not."""

    def blocks(rows: int) -> Iterator[Array]:
        pieces = zip(reader.blocks(PIECE), masks(), strict=True)
        return regrouped((piece[mask == held] for piece, mask in pieces), rows)

    return replace(reader, shape=(size, *reader.shape[1:]), blocks=blocks)


def held_out(rows: int, fraction: float) -> int:
    """How many of the first rows are held out."""
    return int(rows * fraction + 1e-9)


def _masks(rows: int, fraction: float, seed: int) -> Iterator[Array]:
    for start in range(0, rows, PIECE):
        stop = min(start + PIECE, rows)
        yield _drawn(stop - start, held_out(stop, fraction) - held_out(start, fraction), [seed, start])


def _drawn(rows: int, count: int, seed: list[int]) -> Array:
    """Which of some rows are held out, drawn at random."""
    mask = np.zeros(rows, bool)
    mask[np.random.default_rng(seed).permutation(rows)[:count]] = True
    return mask


def _unpacked(packed: Array, rows: int) -> Iterator[Array]:
    for start in range(0, rows, PIECE):  # which is a number of whole bytes
        bits = np.unpackbits(packed[start // 8 : (start + PIECE) // 8])
        yield bits[: min(PIECE, rows - start)].astype(bool)


def _stratified(
    y: RowReader, count: int, seed: int, what: str, otherwise: str, names: Sequence[Any] | None = None
) -> Array:
    """Which rows are held out, a bit for each: of every class as many as `_shares` says."""
    classes = distinct(y)
    sizes = np.zeros(len(classes), np.int64)
    for block in y.blocks(_BLOCK):
        sizes += np.bincount(np.searchsorted(classes, block), minlength=len(classes))
    rare = classes[sizes < 2]
    if rare.size:
        called = rare.tolist() if names is None else [names[int(number)] for number in rare]
        raise DataError(
            f"{y.label} has a single sample of the class {listed(called)}, of which {what} can hold none out; "
            f"leave such rows out, or {otherwise}"
        )
    if not len(classes) <= count <= y.shape[0] - len(classes):
        raise DataError(
            f"{what} holds {count} of {y.shape[0]} samples out, and {y.label} has {len(classes)} classes, of which "
            f"both parts need one at least; give another, or {otherwise}"
        )
    return _drawn_of_each(y, classes, sizes, _shares(sizes, count), seed)


def _drawn_of_each(y: RowReader, classes: Array, sizes: Array, shares: Array, seed: int) -> Array:
    """So many of each class, from every piece of its rows as many."""
    seen = np.zeros(len(classes), np.int64)
    drawn: dict[int, Array] = {}
    packed = []
    for block in y.blocks(_BLOCK):
        mask = np.zeros(len(block), bool)
        of = np.searchsorted(classes, block)
        for number in np.unique(of):
            rows = np.flatnonzero(of == number)
            ranks = seen[number] + np.arange(len(rows))
            for piece in np.unique(ranks // PIECE):
                here = ranks // PIECE == piece
                start, stop = piece * PIECE, min((piece + 1) * PIECE, int(sizes[number]))
                if ranks[here][0] == start:
                    first, last = (shares[number] * end // sizes[number] for end in (start, stop))
                    drawn[number] = _drawn(stop - start, last - first, [seed, start, int(number)])
                mask[rows[here]] = drawn[number][ranks[here] - start]
            seen[number] += len(rows)
        packed.append(np.packbits(mask))
    return np.concatenate(packed)


def _shares(sizes: Array, count: int) -> Array:
    """How many of each class are held out: in proportion, the nearest whole numbers that leave one of each in both."""
    exact = sizes * (count / sizes.sum())
    shares = np.floor(exact).astype(np.int64).clip(1, sizes - 1)
    while missing := count - shares.sum():
        step = 1 if missing > 0 else -1
        room = shares < sizes - 1 if step > 0 else shares > 1
        shares[np.argmax(np.where(room, step * (exact - shares), -np.inf))] += step
    return shares
