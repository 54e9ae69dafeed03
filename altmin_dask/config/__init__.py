"""Pipelines: what to train on what, and how, as TOML tables checked by pydantic.

Tables declare settings, their defaults and what goes with what; what "auto" comes to is decided where data are known.
"""

from altmin_dask.config.loading import load_pipeline, make_pipeline, training_pipeline
from altmin_dask.config.network import KINDS, NetworkTable
from altmin_dask.config.pipeline import Pipeline, TrainingPipeline
from altmin_dask.config.solver import MuSchedule, SolverTable
from altmin_dask.config.tables import ClusterTable, DataTable, OutputTable, TrainingTable

__all__ = [
    "KINDS",
    "ClusterTable",
    "DataTable",
    "MuSchedule",
    "NetworkTable",
    "OutputTable",
    "Pipeline",
    "SolverTable",
    "TrainingPipeline",
    "TrainingTable",
    "load_pipeline",
    "make_pipeline",
    "training_pipeline",
]
