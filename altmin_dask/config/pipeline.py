"""A whole pipeline, and which of its settings go together."""

from __future__ import annotations

from typing import Any

from pydantic import model_validator

from altmin_dask.config.base import Table
from altmin_dask.config.messages import either
from altmin_dask.config.network import KINDS, NetworkTable
from altmin_dask.config.solver import MuSchedule, SolverTable
from altmin_dask.config.tables import ClusterTable, DataTable, OutputTable, TrainingTable
from altmin_dask.solvers.penalties import PENALTIES
from altmin_dask.solvers.schedules import KEEP_Z

RIDGE_OF_Z = 0.005
"""λ where z persists: μ and the z that are near already hold the weights (chosen, not measured)."""


class TrainingPipeline(Table):
    """A whole pipeline, from samples to a trained network: the tables of a TOML file.

    It is no pipeline of scikit-learn's, which chains estimators. `altmin settings` lists all that it may hold;
    `load_pipeline` reads a file, `training_pipeline` makes one of dicts.

    Examples
    --------
    >>> from altmin_dask import TrainingPipeline
    >>> network = {"kind": "classifier", "hidden_layer_sizes": [20]}
    >>> pipeline = TrainingPipeline.model_validate({"data": {"train": "digits:train"}, "network": network})
    >>> pipeline.schedule, pipeline.solver.mu
    ('kfac', 'auto')
    """

    data: DataTable
    network: NetworkTable
    solver: SolverTable = SolverTable()
    training: TrainingTable = TrainingTable()
    cluster: ClusterTable = ClusterTable()
    output: OutputTable = OutputTable()

    @model_validator(mode="after")
    def _max_staleness_is_of_kfac(self) -> TrainingPipeline:
        if self.training.max_staleness and not self.uses_kfac:
            raise ValueError(
                f"training.max_staleness is for K-FAC steps; training.schedule = {self.training.schedule!r} "
                "waits for every group"
            )
        return self

    @model_validator(mode="after")
    def _chunk_steps_are_taken_in_turn(self) -> TrainingPipeline:
        steps = self.training.chunk_steps or 1
        if steps > 1 and (self.training.max_staleness or not self.uses_kfac):
            other = (
                f"training.max_staleness = {self.training.max_staleness}"
                if self.uses_kfac
                else f"training.schedule = {self.training.schedule!r}"
            )
            raise ValueError(
                f"training.chunk_steps = {steps} is for K-FAC steps that are taken in turn, and {other} takes them "
                "otherwise; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _penalty_has_its_schedule(self) -> TrainingPipeline:
        name = self.solver.penalty
        penalty = PENALTIES[name]
        if self.schedule not in penalty.schedules:
            raise ValueError(
                f"solver.penalty = {name!r} keeps z, which training.schedule = {self.schedule!r} does not; "
                f"write {either(penalty.schedules)}"
            )
        if not penalty.augmented and self.solver.augmentation is not None:
            augmented = either([other for other, kind in PENALTIES.items() if kind.augmented])
            raise ValueError(f"solver.augmentation is for penalty = {augmented}; solver.penalty is {name!r}")
        if not penalty.mu_moves and isinstance(self.solver.mu, MuSchedule):
            raise ValueError(
                f"solver.mu is only what {name} begin with; write one number, or one for each layer"
            )
        return self

    @model_validator(mode="after")
    def _curvature_is_known(self) -> TrainingPipeline:
        if self.network.recurrent and self.solver.curvature == "exact":
            raise ValueError("solver.curvature = 'exact' is for chains; leave it out for recurrent networks")
        return self

    @property
    def schedule(self) -> str:
        """The schedule, "auto" resolved: the first one of the penalty."""
        wish = self.training.schedule
        if wish != "auto":
            return wish
        return PENALTIES[self.solver.penalty].schedules[0]

    @property
    def uses_kfac(self) -> bool:
        """Whether W moves by K-FAC steps, and no z is kept."""
        return self.schedule == "kfac"

    @property
    def keeps_z(self) -> bool:
        """Whether z of every sample is kept from visit to visit."""
        return self.schedule in KEEP_Z

    @property
    def ridge(self) -> float:
        """λ, "auto" resolved: that of the kind of network, and a small one where z persists."""
        if self.solver.ridge != "auto":
            return self.solver.ridge
        return RIDGE_OF_Z if self.keeps_z else KINDS[self.network.kind].ridge

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is computed: all but where it runs, when it stops and what it leaves."""
        settings: dict[str, Any] = self.model_dump(mode="json", exclude={"cluster", "output"})
        settings["solver"]["ridge"] = self.ridge  # its defaults by kind are younger than some runs
        if self.network.standardize == "auto":  # so is this; what it came to is known of every run
            del settings["network"]["standardize"]
        if self.data.drop is None:  # and this
            del settings["data"]["drop"]
        for limit in ("max_sweeps", "max_cpu_seconds", "n_iter_no_change", "tol"):
            settings["training"].pop(limit)
        return settings


Pipeline = TrainingPipeline
"""What it is called within the package, where nothing else has that name."""
