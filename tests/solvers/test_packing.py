"""Named arrays in one vector."""

from __future__ import annotations

import numpy as np
import pytest

from altmin_dask.networks.builders import dense_network
from altmin_dask.solvers.evaluation import Evaluation, Moments, RelaxedSums
from altmin_dask.solvers.kernels import VisitSums
from altmin_dask.solvers.kronecker import KroneckerSums, QuadraticModel
from altmin_dask.solvers.packing import PackedArrays, packed_size, split_layers
from altmin_dask.solvers.penalty import ADMMResiduals
from altmin_dask.solvers.statistics import Statistics

SHAPES = [(3, 5), (2, 4)]
LAYOUT = {"total": (), "grams": [(2, 2), (0,), (3, 1)], "row": (4,)}


def arrays_of(packed, layout):
    for name in layout:
        found = getattr(packed, name)
        yield from found if isinstance(found, list) else [found]


def test_arrays_have_their_shapes_and_stand_one_after_the_other():
    packed = PackedArrays(LAYOUT)
    assert packed_size(LAYOUT) == packed.vector.size == 12
    assert packed.vector.dtype == np.float64
    assert packed.total.shape == ()
    assert [gram.shape for gram in packed.grams] == [(2, 2), (0,), (3, 1)]
    packed.vector[:] = np.arange(12)
    assert packed.total == 0
    np.testing.assert_array_equal(packed.grams[0], [[1, 2], [3, 4]])
    np.testing.assert_array_equal(packed.grams[2], [[5], [6], [7]])
    np.testing.assert_array_equal(packed.row, [8, 9, 10, 11])
    packed.total += 3
    packed.row[1:] = 0
    assert packed.vector[0] == 3
    np.testing.assert_array_equal(packed.vector[8:], [8, 0, 0, 0])


def test_a_vector_is_used_as_it_is():
    vector = np.arange(12, dtype=np.float32)
    packed = PackedArrays(LAYOUT, vector, np.float64)
    assert packed.vector is vector
    packed.total += 1
    assert vector[0] == 1


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_vector_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match="takes 12 numbers"):
        PackedArrays(LAYOUT, np.zeros(size))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Statistics, (SHAPES, True)),
        (Statistics, (SHAPES, False)),
        (KroneckerSums, (SHAPES, True)),
        (KroneckerSums, (SHAPES, False)),
        (QuadraticModel, ()),
        (ADMMResiduals, (2,)),
        (RelaxedSums, (2,)),
        (Evaluation, ()),
    ],
)
def test_every_number_stands_in_one_place(kind, arguments):
    layout = kind.layout(*arguments)
    mine, other = kind(*arguments), kind(*arguments)
    assert mine.vector.size == packed_size(layout)
    assert not mine.vector.any()
    mine.vector[:] = 1
    assert sum(array.sum() for array in arrays_of(mine, layout)) == mine.vector.size
    for array in arrays_of(mine, layout):
        array[...] = 0
    assert not mine.vector.any()
    mine.vector += 1
    assert not other.vector.any()
    again = kind(*arguments, vector=mine.vector)
    for one, two in zip(arrays_of(mine, layout), arrays_of(again, layout), strict=True):
        assert np.shares_memory(one, two) or not one.size


def test_sums_of_a_visit_are_statistics_and_residuals():
    for with_inputs in (True, False):
        sums = VisitSums(SHAPES, with_inputs)
        assert sums.vector.size == packed_size(VisitSums.layout(SHAPES, with_inputs))
        sums.statistics.vector += 1
        sums.residuals.vector += 2
        assert set(sums.vector) == {1, 2}
        assert sums.vector.sum() == sums.statistics.vector.size + 2 * sums.residuals.vector.size


def test_layers_of_rows_are_views():
    rows = np.arange(12.0).reshape(2, 6)
    first, second = split_layers(rows, [2, 4])
    np.testing.assert_array_equal(first, rows[:, :2])
    second[:] = 0
    assert not rows[:, 2:].any()


def test_moments_are_those_of_a_networks_samples():
    moments = Moments(dense_network([4, 3, 2]))
    assert moments.gram.shape == (5, 5)
    assert moments.targets.shape == (2,)
