"""What stands at the top of a report: the model that is kept, over-fitting, where the run was, what was changed."""

from __future__ import annotations

import pytest
from reports import RECORDS, make_run, record, result_of, text_of, typed

from altmin_dask.report.facts import Facts
from altmin_dask.report.page import write_report
from altmin_dask.report.settings import all_settings, changed_settings
from altmin_dask.report.verdict import best_record, judge
from altmin_dask.training.ending import is_far, next_step, sweeps_are_done


def test_the_verdict_is_of_the_kept_weights(tmp_path):
    run = make_run(tmp_path / "run")
    run.write_result(result_of(metrics={"rmse": 1.25}))
    text = text_of(write_report(run))
    assert "Kept model sweep 3 of 5 that were done Validation loss 0.25 of 360 samples" in text
    assert "Ended 5 sweeps are done. Over-fitting" in text
    assert "Next Do something else. Result" in text
    assert "validation loss 0.25 RMSE 1.25 training loss 1.08 unit of losses ½ pigs" in text
    assert "measured by its saved weights" in text
    assert "are of the kept model, sweep 3. The loss of a sample: ½ pigs." in text
    with (run.model / "weights.safetensors").open("ab") as file:  # of another model than the result
        file.write(b" ")
    assert run.result() is None


@pytest.mark.parametrize(
    ("training", "validation", "fit", "words"),
    [
        (
            [4, 2, 1],
            [4.0, 2, 3],
            "over",
            "from sweep 1 on: since then the validation loss has risen by 50.0%",
        ),
        ([4, 2, 1.5], [4.0, 2, 1.8], "good", "the validation loss is 1.2 times the training loss"),
        ([4, 1, 0.1], [4.0, 2, 1.9], "far", "the validation loss of the kept model is 19 times"),
        ([4, 2, 0.0], [4.0, 2, 1.9], "far", "is far above the training loss"),
        ([4, 2, 1], [None] * 3, "unknown", "there are no validation samples (data.validation)"),
        ([4, 2, 3], [4.0, 2, 3], "good", "has not risen while that fell"),
        ([4, 2, 1.9], [4.0, 2, 2.01], "good", "at the end 0.5% above its lowest, which may be chance"),
    ],
)
def test_over_fitting(training, validation, fit, words):
    both = enumerate(zip(training, validation, strict=True))
    records = typed([record(float(i), nested_loss=t, validation_loss=v) for i, (t, v) in both])
    verdict = judge(records, None)
    assert verdict.fit == fit
    assert words in verdict.fitting


def test_what_is_next_does_not_say_over_fitting_again(tmp_path):
    records = [record(float(i), nested_loss=2.0 - i, validation_loss=2.0 + i) for i in range(2)]
    following = next_step(sweeps_are_done(1.0), typed(records), 0)
    assert "which is over-fitting" in following
    run = make_run(tmp_path / "run", records=records)
    result = result_of(sweep=0.0)
    run.write_result({**result, "stopped": {**result["stopped"], "next": following}})
    text = text_of(write_report(run))
    assert "It over-fits from sweep 0 on" in text
    assert "Next Try a larger solver.ridge" in text


def test_which_record_is_kept():
    assert best_record(typed(RECORDS)) == 5
    rising = [record(float(i), validation_loss=[3.0, 1.0, 1.0, 2.0][i]) for i in range(4)]
    assert best_record(typed(rising)) == 1  # the first of equals, as training has it
    plain = [record(float(i), validation_loss=None, regularized_loss=[3.0, 1.0, 2.0][i]) for i in range(3)]
    assert best_record(typed(plain)) == 1
    assert best_record(typed([record(0.0, nested_loss=float("nan"), validation_loss=None)])) == 0


def test_where_it_ran(tmp_path):
    run = make_run(tmp_path / "run")
    where = {"date": "2026-11-28T21:20:00+00:00", "machine": "vm, Linux, 2 cores", "versions": "numpy 9"}
    threads = {**where, "where": "2 threads of this process", "in_process": True}
    cluster = {**where, "where": "Dask cluster at tcp://h:1: 3 workers of 2 threads", "in_process": False}
    pipeline = run.manifest.pipeline()
    for each in (threads, {**threads, "date": "2026-11-28T21:21:00+00:00"}, cluster):
        run.manifest.write(pipeline, {}, whereabouts=each)
    assert run.manifest.whereabouts() == [threads, cluster]  # nothing but the date was another
    facts = Facts.of(run)
    about = dict(facts.about())
    assert facts.date == about["date"] == "28 November 2026, 21:20 UTC"
    assert about["ran on"] == "2 threads of this process"
    assert about["went on: ran on"] == "Dask cluster at tcp://h:1: 3 workers of 2 threads"
    # not what [cluster] says, which a scheduler takes the place of
    tables = dict(all_settings(facts.settings, {"cluster.workers": 2}, facts.scheduler))
    assert tables["cluster"] == [("in place of this table", about["went on: ran on"])]


def test_what_was_changed_goes_first(tmp_path):
    settings = make_run(tmp_path / "run").manifest.pipeline()
    assert [key for key, _ in changed_settings(settings)] == [
        "data.train",
        "data.scale",
        "network.kind",
        "network.hidden_layer_sizes",
    ]
    assert ("solver.mine", "3") in changed_settings({"solver": {"mine": 3}})  # of another version


def test_widths_that_layers_replace_are_no_setting_of_a_run():
    layers = [{"kind": "dense", "units": 4}]
    network = dict(all_settings({"network": {"layers": layers, "hidden_layer_sizes": [100]}}, {}, ""))[
        "network"
    ]
    assert [key for key, _ in network] == ["layers"]
    network = dict(all_settings({"network": {"head_layer_sizes": []}}, {}, ""))["network"]
    assert network == [("head_layer_sizes", "–")]


def test_few_samples_do_not_tell_that_a_network_overfits():
    """One of 56 that was wrong made the loss 2.5 times that in training, and a verdict."""
    records = typed(
        [record(float(i), nested_loss=n, validation_loss=v) for i, (n, v) in enumerate([(1, 1), (1, 2.5)])]
    )
    assert is_far(records[1], 1000)
    assert is_far(records[1])
    assert not is_far(records[1], 56)
    assert not is_far(records[0])
