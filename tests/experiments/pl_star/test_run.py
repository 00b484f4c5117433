# SPDX-License-Identifier: Apache-2.0
"""The PL* experiments in miniature: claims, records, figures, refused settings."""

import dataclasses
from functools import partial

import miniature
import numpy as np
import pytest

from experiments.pl_star import config as settings
from experiments.pl_star import figures, words
from experiments.pl_star.networks import examples
from experiments.pl_star.run import MODULES
from experiments.pl_star.tracing import descent_system

pytestmark = pytest.mark.usefixtures("models_broadcast")
QUICK = settings.PRESETS["quick"]
TINY = dataclasses.replace(
    QUICK, examples=4, steps=60, checks=2, grid=15, hessian_widths=(8, 64), hessian_examples=3,
    widths=(8, 16), batch_sizes=(1, 8), sgd_steps=20, repeats=4, solution_width=6,
    solution_examples=2, deltas=2, draws=300, parameters=(5, 10), aspect_draws=20,
    models=("mlp", "resnet"), model_widths=(1, 8), model_examples=40,
    resnet_examples=(20, 95, 200), almost_examples=24, almost_width=1, almost_steps=60,
    fractions=(0.9,),
)  # fmt: skip


drawn = partial(miniature.drawn, TINY, figures, words)


def test_surface_has_a_manifold_of_solutions_or_isolated_minima(figure_run):
    results, _ = found = figure_run("surface")
    assert max(results["overparameterised"]["smallest_loss"]) < 1e-20
    assert results["overparameterised"]["flat_directions"] == [1.0, 1.0]
    assert min(results["underparameterised"]["smallest_loss"]) > 1e-3
    assert results["underparameterised"]["flat_directions"] == [0.0, 0.0]
    assert drawn(found).keys() == {"surface"}


def test_hessian_norm_falls_with_the_square_root_of_the_width(figure_run):
    results, curves = found = figure_run("width")
    slopes = results["linear_output"]["hessian_norm_slope"]
    np.testing.assert_allclose(slopes, -0.5, atol=0.05)
    assert max(results["linear_output"]["hessian_norm_slope"]) < -0.4
    assert min(results["nonlinear_output"]["hessian_norm_slope"]) > -0.3
    assert curves["linear_output/hessian_norms"].shape == (2, 2)
    assert np.isfinite(results["descent"]["kernel_change_slope"]).all()
    assert drawn(found).keys() == {"width"}


def test_ratio_stays_within_the_spectrum_and_eigenvalues_above_their_bounds(figure_run):
    results, curves = found = figure_run("eigenvalue")
    for method in ("width_8", "width_16"):
        assert results[method]["ratio_violations"] == [0.0, 0.0]
        assert results[method]["bound_violations"] == [0.0, 0.0]
        low, ratio, high = (
            curves[f"{method}/{name}"] for name in ("lambda_min", "pl_ratio", "lambda_max")
        )
        assert (low <= ratio * (1 + 1e-9)).all()
        assert (ratio <= high * (1 + 1e-9)).all()
        assert (curves[f"{method}/bound"] <= curves[f"{method}/sharp_bound"] + 1e-12).all()
    assert drawn(found).keys() == {"eigenvalue"}


def test_losses_stay_below_their_bounds(figure_run):
    results, curves = found = figure_run("rate")
    assert results.keys() == {"gd", "sgd_1", "sgd_8"}
    assert all(one["rate_violations"] == [0.0, 0.0] for one in results.values())
    assert (curves["gd/loss"] <= curves["gd/bound"] * (1 + 1e-9)).all()
    assert (curves["gd/bound"][:, -1] < curves["gd/bound"][:, 0]).all()
    assert drawn(found).keys() == {"rate"}


def test_path_stays_inside_every_radius(figure_run):
    results, curves = found = figure_run("radius")
    one = results["gd"]
    assert one["radius_violations"] == [0.0, 0.0]
    assert (curves["gd/distances"] <= curves["gd/path_lengths"] + 1e-12).all()
    assert (np.array(one["path_length"]) < one["path_radius"]).all()
    assert (np.array(one["path_radius"]) <= one["square_loss_radius"]).all()
    assert drawn(found).keys() == {"radius"}


def test_negative_curvature_beside_a_solution(figure_run):
    results, curves = found = figure_run("nonconvex")
    one = results["nonconvex"]
    assert max(one["solution_loss"]) < 1e-25
    assert (np.array(one["hessian_rank"]) >= one["rank_needed"]).all()
    assert one["rank_needed"] == [5.0, 5.0]
    assert max(one["negative_eigenvalue"]) < -1e-9
    assert one["negative_share"] == [1.0, 1.0]
    assert curves["nonconvex/deltas"].shape == (2, 2)
    assert drawn(found).keys() == {"nonconvex"}


def test_random_jacobians_have_the_known_condition(figure_run):
    results, curves = found = figure_run("jacobian")
    for method, expected in {"10x12": 4.90, "10x100": 1.10, "50x60": 5.72}.items():
        values = results[method]["random_jacobian_log_kappa"]
        assert abs(np.mean(values) - expected) < 0.25
        assert max(values) < min(results[method]["log_kappa_bound"])
    gaussian = curves["gaussian/log_kappa"].mean(0)
    assert gaussian[1] > gaussian[0] + 1  # The peak at m = n.
    assert np.isfinite(curves["mlp/log_kappa"]).all()
    # At m = n; the ResNet's rank, short by ten rescalings, over 20, 95 and 200 examples.
    assert results["gaussian"]["peak_ratio"] == [1.0, 1.0]
    assert results["resnet"]["parameters"] == [105.0, 105.0]
    np.testing.assert_allclose(results["resnet"]["independent_parameters"], 95)
    assert results["resnet"]["peak_ratio"] == [1.0, 1.0]
    assert drawn(found).keys() == {"jacobian"}


def test_standard_parameterization_trains_another_network():
    ntk, standard = (
        descent_system(dataclasses.replace(TINY, parameterization=name), 8, 0)
        for name in ("ntk", "standard")
    )
    outputs = [system.apply(system.params, system.inputs) for system in (ntk, standard)]
    np.testing.assert_allclose(*outputs, rtol=1e-6)  # The same function, other weights.
    kernels = ["hidden_0", "output"]
    assert all((ntk.params[k]["kernel"] != standard.params[k]["kernel"]).all() for k in kernels)


def test_stopping_times_lie_below_their_bounds(figure_run):
    results, curves = found = figure_run("almost")
    assert results["almost"]["smallest_eigenvalue"] == [0.0, 0.0]
    assert results["almost"]["parameters"] == [19.0, 19.0]
    one = results["eps_0.9"]
    for time, bound in zip(one["stopping_time"], one["stopping_bound"], strict=True):
        assert time is None or 0 < time <= bound
    assert (curves["almost/pl_ratio"] > 0).all()
    assert drawn(found).keys() == {"almost"}


def test_every_figure_has_its_own_names(figure_run):
    """The record of all figures together must not repeat a number."""
    assert MODULES.keys() == set(settings.FIGURES)
    names = [
        f"{method}/{metric}"
        for figure in settings.FIGURES
        for method, entries in figure_run(figure)[0].items()
        for metric in entries
    ]
    names += [key for figure in settings.FIGURES for key in figure_run(figure)[1]]
    assert len(names) == len(set(names))


def test_examples_are_centred_images_of_one_norm():
    inputs, targets = examples("digits", 5, 0, pooled=True)
    np.testing.assert_allclose(np.linalg.norm(inputs, axis=1), 4.0, rtol=1e-6)
    assert inputs.shape == (5, 16)
    assert set(np.asarray(targets)) <= {-1.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("vgg",)}, "no model 'vgg'"),
        ({"parameterization": "mup"}, "parameterization must be ntk or standard, got 'mup'"),
        ({"examples": 1}, r"examples must lie in \[2, 1000\], got 1"),
        ({"checks": 7}, "checks must divide the numbers of steps, got 7"),
        ({"hessian_widths": (64,)}, "hessian_widths must be two at least"),
        ({"almost_examples": 73}, "almost_examples must exceed 73 parameters, got 73"),
        ({"fractions": (1.0,)}, r"fractions must lie in \(0, 1\)"),
    ],
)
def test_bad_settings_are_named_before_the_run(changes, words):
    with pytest.raises(ValueError, match=words):
        settings.check(dataclasses.replace(QUICK, **changes))
