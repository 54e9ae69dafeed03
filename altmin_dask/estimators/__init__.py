"""The scikit-learn face: estimators that train out of core."""

from altmin_dask.estimators.autoencoder import AltMinAutoencoder
from altmin_dask.estimators.classifier import AltMinClassifier
from altmin_dask.estimators.recurrent import AltMinRecurrentClassifier, AltMinRecurrentRegressor
from altmin_dask.estimators.regressor import AltMinRegressor
from altmin_dask.estimators.scaling import StandardScaler

__all__ = [
    "AltMinAutoencoder",
    "AltMinClassifier",
    "AltMinRecurrentClassifier",
    "AltMinRecurrentRegressor",
    "AltMinRegressor",
    "StandardScaler",
]
