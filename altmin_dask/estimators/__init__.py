"""The scikit-learn face: estimators that train out of core."""

from altmin_dask.estimators.autoencoder import AltMinAutoencoder
from altmin_dask.estimators.classifier import AltMinClassifier
from altmin_dask.estimators.regressor import AltMinRegressor

__all__ = ["AltMinAutoencoder", "AltMinClassifier", "AltMinRegressor"]
