"""What an algorithm is to the trainer, which alone owns the loop and the checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar

from altmin_dask.solvers.schedules import Action
from altmin_dask.training.checkpoint import AlgorithmState
from altmin_dask.training.context import RunContext
from altmin_dask.training.grouping import RowGroup
from altmin_dask.training.record import Metrics
from altmin_dask.types import Weights

S = TypeVar("S", bound=AlgorithmState)
Initial = Callable[[RunContext, RowGroup], Weights]
"""Makes the weights to begin with, some of them from the samples of a group."""


class Algorithm(Protocol[S]):
    """A way of training: its state, what an action does to it, and what there is to know of it.

    It is made of a `RunContext`. Then either `init` or `restore` gives it its state.

    Attributes
    ----------
    state_type : type of AlgorithmState
        What its state is.
    commits_every_step : bool
        Whether every action has to be committed, as it leaves more than the state (z).
    groups : tuple of RowGroup
        What is visited in one step each; every row is in one.
    state : AlgorithmState
        What a commit has to hold; nothing may be pending then.
    """

    state_type: ClassVar[type[AlgorithmState]]
    commits_every_step: ClassVar[bool]
    groups: tuple[RowGroup, ...]
    state: S

    def __init__(self, context: RunContext) -> None: ...

    def init(self, initial: Initial) -> None:
        """Make the first state, and remove what no commit knows of."""

    def restore(self, state: S) -> None:
        """Take up a committed state, and remove what was made after it."""

    def actions(self) -> Iterator[Action]:
        """What to do, from the beginning; the trainer does the records."""

    def step(self, action: Action, cursor: int) -> int:
        """Carry out an action, the `cursor`-th; gives how many samples' visits ended."""

    def drain(self) -> int:
        """Finish what is pending; gives how many samples' visits ended."""

    def committed(self, file: str) -> None:
        """The state was committed in a file: what it has taken the place of can go."""

    def publish(self) -> str:
        """Give the file of `weights`, as they are for samples as these are (`Problem.fold`).

        It is asked for when nothing is pending and, if need be, all is committed.
        """

    @property
    def remedy(self) -> str:
        """Settings to try when training diverges, as words: "a larger …"."""

    @property
    def weights(self) -> Weights:
        """The weights to evaluate, (d_i, d_{i−1} + 1) for each layer."""

    @property
    def metrics(self) -> Metrics:
        """The part of a record that only this algorithm knows."""

    @property
    def converged(self) -> bool:
        """Whether there is nothing more to gain."""

    @property
    def tentative(self) -> bool:
        """Whether the last step in `weights` may yet be taken back: then no loss is too high to go on with."""

    def leave_last_out(self) -> None:
        """Take a last step that is tentative, and gives no finite loss, out of `weights` until the next one."""

    @property
    def pending_samples(self) -> int:
        """Samples whose visit has begun and is not over."""

    @property
    def samples_in_sum(self) -> float:
        """Samples that the objective is a mean over now; 0 before any is."""

    @property
    def group_count(self) -> int:
        """How many groups a pass takes now."""

    @property
    def objective(self) -> float:
        """What is shown of the objective in between records."""


def advance(context: RunContext, algorithm: Algorithm[Any], action: Action) -> int:
    """Carry out one action of an algorithm and count it; gives how many samples' visits ended."""
    checkpoint = context.checkpoint
    visits = algorithm.step(action, checkpoint.cursor)
    checkpoint.visits += visits
    checkpoint.cursor += 1
    return visits
