# SPDX-License-Identifier: Apache-2.0
"""The shared look: told apart without colour, captioned, with ticks that are read."""

import numpy as np
import pytest

from experiments.report import style

RECORD = {
    "command": "python -m experiments toy --methods 'a b'", "seeds": [3, 4], "versions": {},
    "config": {"scale": "A tenth of the paper's width."}, "results": {},
}  # fmt: skip


def test_curves_are_means_with_one_standard_error():
    figure, axes = style.new_figure()
    style.draw_curve(axes[0, 0], [0, 1], [[1.0, 2.0], [3.0, 4.0]], color="k")
    np.testing.assert_array_equal(axes[0, 0].lines[0].get_ydata(), [2.0, 3.0])
    low, high = np.quantile(axes[0, 0].collections[0].get_paths()[0].vertices[:, 1], [0, 1])
    assert (low, high) == (1.0, 4.0)  # sd = sqrt 2, so the error of a mean of two is 1.
    assert len(figure.axes) == 1


def test_names_have_their_own_look_or_a_spare_one_that_differs():
    known = {"a": ("ink", "dotted", "P")}
    found = style.looks(["32", "a", "64", "32", "128"], known)
    assert found["a"] == {"color": style.INK, "linestyle": style.LINES["dotted"], "marker": "P"}
    assert len({look["color"] for look in found.values()}) == 4
    many = style.looks(map(str, range(9)), {})
    assert many["0"] == many["8"] != many["7"]
    assert len(set(style.shades(6))) == 6


def test_the_caption_names_command_seeds_scale_and_lossy_data():
    lossy = RECORD | {"versions": {"cifar10": "3.0.2, lossy", "jax": "1"}}
    text = style.caption(lossy)
    for part in (RECORD["command"], "Seeds 3 to 4", "A tenth", "cifar10 3.0.2, lossy"):
        assert part in text
    assert "Seed 3." in style.caption(RECORD | {"seeds": [3]})


def test_the_caption_of_several_runs_names_their_commands_and_what_is_lossy_once():
    runs = [RECORD | {"command": f"run {i}", "versions": {"cifar10": "lossy"}} for i in range(6)]
    text = style.caption(*runs)
    assert text.startswith("run 0; run 1; run 2; run 3; and 2 more. A tenth of the paper's width.")
    assert text.count("lossy") == 1


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (1.0, 20.0, ["1", "2", "5", "10", "20"]),
        (300.0, 2400.0, ["500", "1,000", "2,000"]),
        (2400.0, 8100.0, ["3,000", "4,000", "6,000", "8,000"]),
        (24.0, 37.0, ["25", "30", "35"]),  # Between 20 and 50.
        (1.0, 1e4, None),
    ],
)
def test_short_logarithmic_axes_have_plain_ticks(low, high, labels):
    figure, axes = style.new_figure()
    axes[0, 0].set(xscale="log", xlim=(low, high))
    style.tidy(figure)
    figure.draw_without_rendering()
    ticks = zip(axes[0, 0].get_xticks(), axes[0, 0].get_xticklabels(), strict=True)
    shown = [label.get_text() for tick, label in ticks if low <= tick <= high]
    assert labels is None or shown == labels
    assert (labels is None) == any("10^" in text for text in shown)


def test_ticks_that_were_set_stay():
    figure, axes = style.new_figure()
    axes[0, 0].set(xscale="log", xlim=(0.08, 0.6))
    axes[0, 0].set_xticks([0.1, 0.25, 0.5], ["0.1", "0.25", "0.5"])
    style.tidy(figure)
    figure.draw_without_rendering()
    shown = [label.get_text() for label in axes[0, 0].get_xticklabels()]
    assert shown == ["0.1", "0.25", "0.5"]
