"""Initial weights fitted to the data: a whitened first layer and an output that predicts the mean.

Random features of raw samples are dominated by their mean and a few principal directions; in all others φ_1 hardly
varies, so the layer above cannot use them, and the first layer has to be turned towards them pass by pass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from altmin_dask.networks.network import Network
from altmin_dask.types import Array, Weights

if TYPE_CHECKING:
    import numpy.typing as npt

SPREAD = 0.25
"""Standard deviation of z_1: inside the nearly linear range of every activation."""


def whitened_weights(
    network: Network,
    gram: Array,
    target_mean: Array,
    seed: int | np.random.Generator = 0,
    dtype: npt.DTypeLike = np.float32,
) -> Weights:
    """Initial weights from the first two moments of some samples.

    The first layer is W_1 = s √(d_1/r) Q Λ^(−1/2) Uᵀ with b_1 = −W_1 x̄, where Λ and U are the r ≤ d_1 leading
    eigenpairs of the samples' covariance and Q has random orthonormal columns: z_1 has mean 0, standard deviation
    s = `SPREAD`, and for r = d_1 no correlations. The last layer is 0 but for its bias φ_L⁻¹(mean target). Layers
    between are those of `Network.initial_weights`, as is the whole network if the samples do not vary.

    Parameters
    ----------
    network : Network
        With at least one hidden layer; without, only the output bias is set.
    gram : ndarray, (d_0 + 1, d_0 + 1), float64
        Σ x̃ x̃ᵀ over the samples, x̃ = [x; 1].
    target_mean : ndarray, (d_L,)
        Mean target; class frequencies for labels.
    seed : int or Generator
        For Q and the layers between.
    dtype : dtype
        Of the weights.

    Returns
    -------
    tuple of ndarray
        W̃_1 … W̃_L.
    """
    rng = np.random.default_rng(seed)
    weights = list(network.initial_weights(rng, dtype))
    weights[-1][:, -1] = network.loss.inverse(target_mean)
    samples = gram[-1, -1]
    mean = gram[-1, :-1] / samples
    values, vectors = np.linalg.eigh(gram[:-1, :-1] / samples - np.outer(mean, mean))
    # directions within rounding of none are none
    kept = (values > 1e-6 * values[-1]) & (values > 1e-10 * np.trace(gram) / samples)
    width = network.layers[0].units
    kept[:-width] = False
    if not network.activations or not kept.any():
        return tuple(weights)
    rank = int(kept.sum())
    mix = np.linalg.qr(rng.standard_normal((width, rank)))[0]
    first = (mix * (SPREAD * np.sqrt(width / rank / values[kept]))) @ vectors[:, kept].T
    weights[0] = np.column_stack([first, -first @ mean]).astype(dtype)
    weights[-1][:, :-1] = 0
    return tuple(weights)
