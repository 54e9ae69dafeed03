"""Neural networks trained by alternating minimisation, out of core, on Dask and zarr."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from altmin_dask.config import TrainingPipeline, load_pipeline, training_pipeline
    from altmin_dask.data.ingest import ingest
    from altmin_dask.data.open import open_source
    from altmin_dask.data.sample_store import SampleStore
    from altmin_dask.data.source import array_source
    from altmin_dask.estimators import (
        AltMinAutoencoder,
        AltMinClassifier,
        AltMinRecurrentClassifier,
        AltMinRecurrentRegressor,
        AltMinRegressor,
        StandardScaler,
    )
    from altmin_dask.export import sequential, state_dict, write_onnx
    from altmin_dask.runs import train
    from altmin_dask.storage.model import Model
    from altmin_dask.storage.run import RunFolder

__all__ = [
    "AltMinAutoencoder",
    "AltMinClassifier",
    "AltMinRecurrentClassifier",
    "AltMinRecurrentRegressor",
    "AltMinRegressor",
    "Model",
    "RunFolder",
    "SampleStore",
    "StandardScaler",
    "TrainingPipeline",
    "array_source",
    "ingest",
    "load_pipeline",
    "open_source",
    "sequential",
    "state_dict",
    "train",
    "training_pipeline",
    "write_onnx",
]

_HOMES = {
    "config": ("TrainingPipeline", "load_pipeline", "training_pipeline"),
    "estimators": (
        "AltMinAutoencoder",
        "AltMinClassifier",
        "AltMinRecurrentClassifier",
        "AltMinRecurrentRegressor",
        "AltMinRegressor",
        "StandardScaler",
    ),
    "export": ("sequential", "state_dict", "write_onnx"),
    "runs": ("train",),
    "storage.model": ("Model",),
    "storage.run": ("RunFolder",),
    "data.ingest": ("ingest",),
    "data.open": ("open_source",),
    "data.sample_store": ("SampleStore",),
    "data.source": ("array_source",),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: scikit-learn and Dask take a second."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"altmin_dask.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
