# SPDX-License-Identifier: Apache-2.0
"""Sentences on trends, from records made by hand."""

import pytest

from experiments.alpha_beta.trends import trends
from experiments.alpha_beta.words import tables
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


VERDICTS = {
    "shown": "Shown here",
    "not shown": "Not shown at this scale",
    "too noisy": "Too noisy to tell at this scale",
}


@pytest.mark.parametrize(
    ("centres", "verdict", "words"),
    [
        ((1.0, 3.0, 2.0), "shown", "width 64 less width 8 +24.5, width 64 less width 512 +12.2"),
        (
            (1.0, 2.0, 3.0),
            "not shown",
            "width 64 less width 8 +12.2, width 64 less width 512 -12.2",
        ),
        (
            (3.0, 2.0, 1.0),
            "not shown",
            "width 64 less width 8 -12.2, width 64 less width 512 +12.2",
        ),
        ((1.0, 3.0, 2.95), "too noisy", "width 64 less width 512 +0.6"),
        ((1.0, 3.0, 3.05), "too noisy", "width 64 less width 512 -0.6"),
        (
            (2.95, 3.0, 1.0),
            "too noisy",
            "width 8 2.950 ± 0.058, width 64 3.000 ± 0.058, width 512 1.000 ± 0.058",
        ),
        ((1.0, 3.0, 2.995), "not shown", "width 64 less width 512 0"),
    ],
)
def test_rise_then_fall(centres, verdict, words):
    methods = ("width_8", "width_64", "width_512")
    found = told({m: around(c) for m, c in zip(methods, centres, strict=True)})["width"]
    assert (found.verdict, found.shown) == (verdict, verdict == "shown")
    assert words in found.found
    assert found.sentence().startswith(f"The paper: {found.expected}. {VERDICTS[verdict]}: ")


@pytest.mark.parametrize(
    ("prefix", "centres", "verdict", "words"),
    [
        ("batch", (2.0, 1.0), "shown", "in standard errors, batch 16 less batch 32 +12.2"),
        ("depth", (1.1, 1.0), "too noisy", "depth 16 less depth 32 +1.2"),
        ("depth", (1.0, 1.1), "too noisy", "depth 16 less depth 32 -1.2"),
        ("depth", (1.0, 2.0), "not shown", "depth 16 less depth 32 -12.2"),
        ("batch", (1.0, 0.995), "not shown", "batch 16 less batch 32 0"),
    ],
)
def test_falling_is_by_more_than_two_standard_errors(prefix, centres, verdict, words):
    methods = (f"{prefix}_16", f"{prefix}_32")
    found = told({m: around(c) for m, c in zip(methods, centres, strict=True)})[prefix]
    assert found.verdict == verdict
    assert words in found.found


def test_the_table_has_the_differences_in_standard_errors():
    centres = {"width_8": 1.0, "width_64": 3.0, "width_512": 3.05}
    entries = {m: {"smallest_alpha": around(c), "beta_at_2": [0.0] * 3} for m, c in centres.items()}
    table = tables({"results": summarise(entries)})[0]
    assert table.title == "Trends"
    ((setting, _, verdict, differences, here),) = table.rows
    assert [setting.text, verdict.text, differences.text] == ["width", "too noisy", "+24.5, -0.6"]
    assert "width 512 3.050 ± 0.058" in here.text


def test_two_widths_cannot_rise_and_fall():
    assert told({"width_8": around(1.0), "width_64": around(2.0)})["width"].verdict == "not shown"


def test_wider_errors_make_the_same_means_too_noisy():
    wide = {"batch_16": [0.0, 2.0, 4.0], "batch_32": [0.0, 1.0, 2.0]}
    assert told(wide)["batch"].verdict == "too noisy"


def test_unequally_converged_runs_are_named():
    alphas = {"width_8": around(1.0), "width_64": around(2.0), "width_512": around(1.0)}
    assert "converged" not in told(alphas, final_loss=[0.1, 0.1, 0.1])["width"].found

    def ending(loss):
        ends = {"width_512": [loss] * 3}
        return trends(
            {"results": summarise(
                {m: {"smallest_alpha": v, "final_loss": ends.get(m, [0.09] * 3)}
                 for m, v in alphas.items()}
            )}
        )["width"].found  # fmt: skip

    assert "converged" not in ending(0.01)  # All have, though not equally far.
    assert "converged" not in ending(0.15)
    found = ending(1.7)
    assert "the final losses differ, 0.09000 (width 8) to 1.700 (width 512)" in found


def test_beta_tells_where_alpha_is_at_its_floor():
    floor = {"batch_32": [0.1] * 3, "batch_256": [0.1] * 3}
    betas = {"batch_32": around(0.5), "batch_256": around(0.1)}
    found = told(floor, betas)["batch"]
    assert found.shown
    assert "the smallest alpha is at its floor, .1 to .11" in found.found
    assert "beta of batch 32 0.500 ± 0.058, batch 256 0.100 ± 0.058" in found.found
    assert found.errors == pytest.approx([0.4 / (0.1 * (2 / 3) ** 0.5)])
    same = told(floor)["batch"]
    assert not same.shown
    assert same.errors == (0.0,)


def test_optimizers_fall_step_by_step():
    alphas = {"sgd": around(3.0), "momentum": around(2.0), "adam": around(1.0)}
    assert told(alphas)["optimizer"].shown
    alphas["momentum"] = around(3.2)
    found = told(alphas)["optimizer"]
    assert found.verdict == "not shown"
    assert "sgd less momentum -2.4, momentum less adam +" in found.found
    alphas["momentum"] = around(3.1)
    assert told(alphas)["optimizer"].verdict == "too noisy"


def test_a_run_without_a_pair_shows_nothing():
    found = told({"width_8": [None, 1.0], "width_64": [2.0, 2.0]})["width"]
    assert not found.shown
    assert found.found == "no pair holds in some run"
    assert not told({"transformer": [None, 1.0]})["transformer"].shown
    assert told({"transformer": [1.0, 1.0]})["transformer"].shown


LSTM = {
    "early_angle": [-0.2, -0.3], "min_angle": [-0.5, -0.5], "negative_share": [0.5, 0.6],
    "pl_constant": [1e-6, 1e-6],
}  # fmt: skip


@pytest.mark.parametrize(
    ("angles", "verdict"),
    [([-0.2, -0.3], "shown"), ([0.2, 0.3], "not shown"), ([-0.2, 0.1], "too noisy")],
)
def test_the_cosine_of_the_lstm_must_be_negative_beyond_its_error(angles, verdict):
    entry = LSTM | {"early_angle": angles}
    assert trends({"results": summarise({"lstm": entry})})["lstm"].verdict == verdict


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [
        ([1e-3, 1e-3], [1e-2, 2e-2], "too noisy"),
        ([1e-3, 1e-3], [1e-1, 1.2e-1], "shown"),
        ([1e-2, 1e-2], [5e-2, 5.5e-2], "not shown"),
        ([1e-3, 1e-3], None, "not shown"),
        ([1e-8, 1e-7], None, "shown"),
    ],
)
def test_the_pl_constant_of_the_lstm_is_compared_with_the_classifiers(own, other, verdict):
    results = {"lstm": LSTM | {"pl_constant": own}}
    if other:
        results |= {"mlp": {"pl_constant": other}}
    found = trends({"results": summarise(results)})["lstm_pl"]
    assert found.verdict == verdict
    if verdict == "shown" and other:
        assert "110 times below the 0.110 ± 0.010 of the MLP" in found.found


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
