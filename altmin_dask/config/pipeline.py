"""A whole pipeline, and which of its settings go together."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from altmin_dask.config.base import Table
from altmin_dask.config.network import NetworkTable
from altmin_dask.config.solver import MuSchedule, SolverTable
from altmin_dask.config.tables import ClusterTable, DataTable, OutputTable, TrainingTable


class Pipeline(Table):
    """A whole pipeline: the tables of a TOML file.

    Examples
    --------
    >>> from altmin_dask import Pipeline
    >>> network = {"kind": "classifier", "hidden_layer_sizes": [20]}
    >>> pipeline = Pipeline.model_validate({"data": {"train": "digits:train"}, "network": network})
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
    def _max_staleness_is_of_kfac(self) -> Pipeline:
        if self.training.max_staleness and not self.uses_kfac:
            raise ValueError(
                f"training.max_staleness is for K-FAC steps; training.schedule = {self.training.schedule!r} "
                "waits for every group"
            )
        return self

    @model_validator(mode="after")
    def _penalty_has_its_schedule(self) -> Pipeline:
        penalty = self.solver.penalty
        if penalty != "l2" and self.uses_kfac:
            raise ValueError(
                f"solver.penalty = {penalty!r} keeps z, which training.schedule = 'kfac' does not; "
                "write 'windows', 'incremental' or 'batch'"
            )
        if penalty != "l1" and self.solver.augmentation is not None:
            raise ValueError(f"solver.augmentation is for penalty = 'l1'; solver.penalty is {penalty!r}")
        if penalty == "multipliers" and isinstance(self.solver.mu, MuSchedule):
            raise ValueError(
                "solver.mu is only what multipliers begin with; write one number, or one for each layer"
            )
        return self

    @model_validator(mode="after")
    def _curvature_is_known(self) -> Pipeline:
        if self.network.recurrent and self.solver.curvature == "exact":
            raise ValueError("solver.curvature = 'exact' is for chains; leave it out for recurrent networks")
        return self

    @property
    def schedule(self) -> Literal["kfac", "windows", "incremental", "batch"]:
        """The schedule, "auto" resolved: K-FAC steps, but windows for penalties that need z."""
        wish = self.training.schedule
        if wish != "auto":
            return wish
        return "kfac" if self.solver.penalty == "l2" else "windows"

    @property
    def uses_kfac(self) -> bool:
        """Whether W moves by K-FAC steps, and no z is kept."""
        return self.schedule == "kfac"

    def identity(self) -> dict[str, Any]:
        """The settings that decide what is computed: all but where it runs, when it stops and what it leaves."""
        settings: dict[str, Any] = self.model_dump(mode="json", exclude={"cluster", "output"})
        for limit in ("max_sweeps", "max_cpu_seconds", "n_iter_no_change", "tol"):
            settings["training"].pop(limit)
        return settings
