"""Neural networks trained by alternating minimisation, out of core, on Dask and zarr."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from altmin_dask.estimators import (
        AltMinAutoencoder,
        AltMinClassifier,
        AltMinRecurrentClassifier,
        AltMinRecurrentRegressor,
        AltMinRegressor,
        StandardScaler,
    )

__all__ = [
    "AltMinAutoencoder",
    "AltMinClassifier",
    "AltMinRecurrentClassifier",
    "AltMinRecurrentRegressor",
    "AltMinRegressor",
    "StandardScaler",
]


def __getattr__(name: str) -> Any:
    """Import estimators when they are asked for: scikit-learn and Dask take a second."""
    if name in __all__:
        from altmin_dask import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
