"""Everything that training is at one moment, besides z: what a commit holds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, Self

from altmin_dask.types import Array, Weights


class AlgorithmState(Protocol):
    """What an algorithm is at one moment: arrays and numbers of its own.

    Attributes
    ----------
    name : str
        What a commit calls it.
    weights : tuple of ndarray, (d_i, d_{i−1} + 1)
        W̃_1 … W̃_L, from which the next step starts.
    """

    name: ClassVar[str]
    weights: Weights

    def to_tensors(self) -> dict[str, Array]:
        """All arrays by name; weights as `altmin_dask.storage.model.layer_tensors` names them."""

    def to_scalars(self) -> dict[str, Any]:
        """All that is no array, JSON-ready."""

    @classmethod
    def restore(cls, tensors: dict[str, Array], scalars: dict[str, Any]) -> Self:
        """Undo both.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing or does not fit.
        """


@dataclass
class Checkpoint:
    """Where training is: the trainer's numbers, and the state of the algorithm.

    Attributes
    ----------
    algorithm_state : AlgorithmState or None
        None until the first commit.
    cursor : int
        How many actions of the schedule are done.
    visits : int
        How many samples were visited, repetitions counted.
    cpu_seconds, wall_seconds : float
        Spent on all that led here, evaluation excluded; what was lost by a kill and done again counts once.
    history_bytes : int
        Length of the history that belongs to this state.
    records, best_record, best_visits : int
        Records of the history, which of them (from 0) is the best, and `visits` then.
    best : float or None
        The lowest loss of a record: of the validation samples if there are any, else of training samples with the
        ridge.
    model : int
        The record that the run's model is of; −1 before the first.
    marks : list of (float, float)
        The loss and λ Σ ‖W̃_i‖² of the first record, and of the best one in view of both; empty before.
    """

    algorithm_state: AlgorithmState | None = None
    cursor: int = 0
    visits: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    history_bytes: int = 0
    records: int = 0
    best_record: int = 0
    best_visits: int = 0
    best: float | None = None
    model: int = -1
    marks: list[list[float]] = field(default_factory=list)

    @property
    def weights(self) -> Weights:
        """W̃_1 … W̃_L of the last commit."""
        assert self.algorithm_state is not None
        return self.algorithm_state.weights

    def to_tensors(self) -> dict[str, Array]:
        """All arrays by name: those of the algorithm."""
        assert self.algorithm_state is not None
        return self.algorithm_state.to_tensors()

    def to_scalars(self) -> dict[str, Any]:
        """All that is not an array, JSON-ready."""
        state = self.algorithm_state
        assert state is not None
        plain = {own.name: getattr(self, own.name) for own in fields(self) if own.name != "algorithm_state"}
        return {**plain, "algorithm": {"name": state.name, **state.to_scalars()}}

    @classmethod
    def restore(
        cls,
        tensors: dict[str, Array],
        scalars: dict[str, Any],
        states: dict[str, type[AlgorithmState]],
    ) -> Self:
        """Undo `to_tensors` and `to_scalars`, with the kinds of states by name.

        Raises
        ------
        KeyError, TypeError, ValueError
            If something is missing or does not fit.
        """
        scalars = dict(scalars)
        own = dict(scalars.pop("algorithm"))
        return cls(states[own.pop("name")].restore(tensors, own), **scalars)
