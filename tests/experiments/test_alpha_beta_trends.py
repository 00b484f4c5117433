# SPDX-License-Identifier: Apache-2.0
"""Sentences on trends, from records made by hand."""

import pytest

from experiments.alpha_beta.trends import trends
from plprune.records import summarise


def told(alphas, betas=None, **others):
    """The trends of methods with these values per seed."""
    betas = betas or {method: [0.0] * len(values) for method, values in alphas.items()}
    results = {
        method: {"smallest_alpha": values, "beta_at_2": betas[method], **others}
        for method, values in alphas.items()
    }
    return trends({"results": summarise(results)})


def around(centre):
    return [centre - 0.1, centre, centre + 0.1]


@pytest.mark.parametrize(
    ("centres", "shown", "words"),
    [
        ((1.0, 3.0, 2.0), True, "alpha is largest, 3.000 ± 0.058, at 64; the rise from 1.000"),
        ((1.0, 2.0, 3.0), False, "there is no fall, as that is the end of the range"),
        ((3.0, 2.0, 1.0), False, "there is no rise, as that is the end of the range"),
        ((1.0, 3.0, 2.95), False, "the fall to 2.950 ± 0.058 at 512 is 0.6 standard errors"),
    ],
)
def test_rise_then_fall(centres, shown, words):
    methods = ("width_8", "width_64", "width_512")
    found = told({m: around(c) for m, c in zip(methods, centres, strict=True)})["width"]
    assert found.shown is shown
    assert words in found.found
    verdict = "Shown here" if shown else "Not shown at this scale"
    assert found.sentence().startswith(f"The paper: {found.expected}. {verdict}: ")


def test_falling_is_by_more_than_two_standard_errors():
    clear = told({"batch_32": around(2.0), "batch_256": around(1.0)})["batch"]
    assert clear.shown
    assert "alpha falls by 12.2 standard errors" in clear.found
    unclear = told({"depth_9": around(1.1), "depth_34": around(1.0)})["depth"]
    assert not unclear.shown
    rising = told({"depth_9": around(1.0), "depth_34": around(2.0)})["depth"]
    assert not rising.shown
    assert "alpha rises" in rising.found


def test_beta_tells_where_alpha_is_at_its_floor():
    floor = {"batch_32": [0.1] * 3, "batch_256": [0.1] * 3}
    betas = {"batch_32": around(0.5), "batch_256": around(0.1)}
    found = told(floor, betas)["batch"]
    assert found.shown
    assert "the smallest alpha is .1 throughout" in found.found
    assert "beta falls" in found.found
    same = told(floor)["batch"]
    assert not same.shown
    assert "by 0.0 standard errors" in same.found


def test_optimizers_fall_step_by_step():
    alphas = {"sgd": around(3.0), "momentum": around(2.0), "adam": around(1.0)}
    assert told(alphas)["optimizer"].shown
    alphas["momentum"] = around(3.2)
    found = told(alphas)["optimizer"]
    assert not found.shown
    assert "alpha changes by" in found.found


def test_a_run_without_a_pair_shows_nothing():
    found = told({"width_8": [None, 1.0], "width_64": [2.0, 2.0]})["width"]
    assert not found.shown
    assert found.found == "no pair holds in some run"
    assert not told({"transformer": [None, 1.0]})["transformer"].shown
    assert told({"transformer": [1.0, 1.0]})["transformer"].shown


def test_lstm_is_compared_with_the_classifiers_of_the_record():
    lstm = {"early_angle": [-0.2, -0.3], "min_angle": [-0.5, -0.5], "pl_constant": [1e-6, 1e-6]}
    lstm["negative_share"] = [0.5, 0.6]
    mlp = {"pl_constant": [1e-2, 1e-2], "smallest_alpha": [1.0, 1.0], "beta_at_2": [0.0, 0.0]}
    found = trends({"results": summarise({"lstm": lstm, "width_8": mlp})})["lstm"]
    assert found.shown
    assert "1e+04 times below" in found.found
    upright = lstm | {"early_angle": [0.2, 0.3]}
    assert not trends({"results": summarise({"lstm": upright})})["lstm"].shown


def test_halfspace_needs_a_plateau_a_failing_angle_and_a_low_end():
    entry = {
        "min_angle": [-0.1, -0.2], "plateau_gradient": [1e-3, 2e-3], "plateau_share": [0.01, 0.02],
        "final_loss": [0.3, 0.2],
    }  # fmt: skip
    found = trends({"results": summarise({"halfspace": entry})})["halfspace"]
    assert found.shown
    assert "all three on 2" in found.found
    for change in (
        {"min_angle": [0.1, 0.2]}, {"plateau_share": [0.5, 0.5]}, {"final_loss": [0.5, 0.5]},
        {"plateau_share": [None, 0.2]},
    ):  # fmt: skip
        changed = {"halfspace": entry | change}
        assert not trends({"results": summarise(changed)})["halfspace"].shown
