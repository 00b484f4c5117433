# SPDX-License-Identifier: Apache-2.0
"""Each picture shows the numbers that it was given, says what it found, and fits a column."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

import plprune
from plprune import pictures
from plprune.conditions import Frontier
from plprune.constants import Measurement
from plprune.types import Estimate

EMPTY = np.empty(0)


@pytest.fixture(scope="module")
def pruned():
    """Groups of a network of two layers, and half of the nodes of the first."""
    params = {"a": jnp.ones((3, 8)), "b": jnp.ones((8, 6)), "c": jnp.ones((6, 2))}
    apply = lambda p, x: jnp.tanh(jnp.tanh(x @ p["a"]) @ p["b"]) @ p["c"]  # noqa: E731
    groups = plprune.find_nodes(apply, params, jnp.ones((4, 3)))
    first, second = groups.prunable
    return groups, {first: np.arange(8) % 2 == 0, second: np.ones(6, bool)}


def test_a_notebook_shows_a_picture_without_pyplot(pruned):
    """Otherwise it would print the figure's name: nothing has told IPython how to draw one."""
    groups, keep = pruned
    shown = pictures.kept_nodes(groups, keep)._repr_png_()
    assert shown.startswith(b"\x89PNG")


def title(figure):
    return figure.axes[0].get_title(loc="left")


def is_drawn(figure):
    """Written to a file, and no word of it reaches beyond the page."""
    buffer = io.BytesIO()
    with pictures.style():
        figure.savefig(buffer, format="png")
    assert figure.get_figwidth() == pytest.approx(3.4)
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    assert box.x0 > -0.05
    assert box.x1 < figure.get_figwidth() + 0.05
    return len(buffer.getvalue()) > 1000


def test_a_kernels_spectrum_shows_what_is_resolved():
    values = np.array([100.0, 10.0, 1.0, 1e-9], np.float32)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    kernel = (rotation * values) @ rotation.T
    figure = pictures.kernel_spectrum(kernel.astype(np.float32).reshape(2, 2, 2, 2))
    points, hidden = figure.axes[0].lines[:2]
    np.testing.assert_allclose(points.get_ydata(), values[:3], rtol=1e-5)
    assert len(hidden.get_ydata()) == 1
    assert title(figure) == "3 of 4 resolved; largest / smallest 100"
    assert is_drawn(figure)


def test_a_kernel_in_double_precision_is_seen_as_such_whatever_jax_computes_in():
    with jax.enable_x64(False):
        figure = pictures.kernel_spectrum(np.diag([1.0, 1e-12]))
    assert title(figure).startswith("2 of 2 resolved")


def test_a_kernel_of_nothing_is_drawn():
    figure = pictures.kernel_spectrum(jnp.zeros((3, 3)))
    assert title(figure) == "none of 3 eigenvalues is resolved"
    assert is_drawn(figure)


@pytest.mark.parametrize("kernel", [np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0)),
                                    np.full((2, 2), np.nan)])  # fmt: skip
def test_what_is_no_kernel_is_refused(kernel):
    with pytest.raises(ValueError, match="kernel must be"):
        pictures.kernel_spectrum(kernel)


def test_a_hessians_density_spans_its_eigenvalues():
    eigenvalues = jnp.linspace(-1.0, 5.0, 30)
    objective = lambda p, scale: scale * jnp.sum(eigenvalues * p["w"] ** 2) / 2  # noqa: E731
    figure = pictures.hessian_density(
        objective, {"w": jnp.ones(30)}, 1.0, key=jax.random.key(0), num_steps=30
    )
    assert title(figure) == "eigenvalues from -1 to 5"
    assert is_drawn(figure)


def test_kept_nodes_and_sizes(pruned):
    figure = pictures.kept_nodes(*pruned)
    (first, second) = figure.axes[0].images
    shades = np.asarray(first.get_array())[0]
    assert (shades[::2] == shades[0]).all()
    assert (shades[1::2] == shades[1]).all()
    assert (np.asarray(second.get_array())[0] == shades[0]).all()
    assert title(figure) == "10 of 14 nodes are kept"
    assert is_drawn(figure)

    figure = pictures.network_sizes(*pruned)
    assert [bar.get_width() for bar in figure.axes[0].patches] == [8, 6, 4, 6]
    assert [text.get_text() for text in figure.axes[0].texts] == [" 4 of 8", " 6 of 6"]
    assert is_drawn(figure)


def test_a_picture_of_no_group_is_refused(pruned):
    with pytest.raises(ValueError, match="at least one group"):
        pictures.kept_nodes(pruned[0], {})


def test_conditioning_along_training_leaves_out_what_is_not_resolved():
    resolved = np.array([True, False, True])
    estimate = Estimate(np.array([100.0, np.inf, 10.0]), np.full(3, 0.1), resolved)
    measured = Measurement(*[estimate] * 5)
    figure = pictures.condition_along_training(np.array([0, 5, 10]), measured)
    upper = figure.axes[0]
    np.testing.assert_allclose(upper.lines[0].get_xydata(), [[0, 100], [10, 10]])
    assert title(figure) == "L/mu 100 at first, 10 at last; x: not resolved"
    assert is_drawn(figure)
    with pytest.raises(ValueError, match=r"pl_constant must be \[2\]"):
        pictures.condition_along_training(np.arange(2), measured)
    with pytest.raises(ValueError, match="steps must be"):
        pictures.condition_along_training(np.arange(0), measured)


def test_the_frontier_marks_the_smallest_pair():
    frontier = plprune.alpha_beta_frontier(*np.array([[-0.5, 1.0], [1.0, 0.5], [2.0, 0.7]]))
    pair = plprune.conditions.smallest_pair(frontier)
    figure = pictures.condition_frontier(frontier)
    np.testing.assert_allclose(figure.axes[0].lines[1].get_xydata(), [pair])
    assert is_drawn(figure)
    with pytest.raises(ValueError, match="feasible pair"):
        pictures.condition_frontier(Frontier(EMPTY, EMPTY, EMPTY, np.inf, -np.inf))
