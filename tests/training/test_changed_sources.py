"""A file that was written anew after a run has read it: what is gone on with is told."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from training_runs import train

from altmin_dask.config import make_pipeline
from altmin_dask.errors import AltMinWarning


@pytest.mark.parametrize("validation", [0.2, "v.csv"])
def test_a_file_that_has_changed_is_told(validation, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(200, 3)), columns=list("abc")).assign(y=np.arange(200) % 2)
    frame.to_csv("t.csv", index=False)
    frame.to_csv("v.csv", index=False)

    def pipeline(sweeps: float):
        data = {"train": "t.csv", "validation": validation, "y": "y"}
        network = {"kind": "classifier", "hidden_layer_sizes": [4]}
        return make_pipeline({"data": data, "network": network, "training": {"max_sweeps": sweeps}})

    _, _, first = train(pipeline(1.0), tmp_path / "run")
    train(pipeline(2.0), tmp_path / "run", resume=True)  # nothing is said: warnings are errors
    frame.assign(a=-frame["a"]).to_csv("t.csv", index=False)
    later = (tmp_path / "t.csv").stat().st_mtime_ns + 10**9
    os.utime("t.csv", ns=(later, later))
    with pytest.warns(AltMinWarning, match=r"t\.csv has changed since the run read it, .*begin another run"):
        _, _, records = train(pipeline(3.0), tmp_path / "run", resume=True)
    assert len(records) > len(first)
