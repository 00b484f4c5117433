# SPDX-License-Identifier: Apache-2.0
"""PL* certificates, radii and the descent principle, on systems whose constants are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.constants import (
    ball_certificate,
    best_radius,
    hessian_norm,
    jacobian_norm,
    pl_constant,
    radii,
)
from tests import problems

pytestmark = pytest.mark.usefixtures("models_broadcast")


def circle(params, inputs):
    """F(w) = x |w|^2/2: DF = x w', K = x^2 |w|^2, |H_F| = x; L_F on B(w0, R) is |w0| + R."""
    return inputs * jnp.sum(params**2) / 2


def certified(size, radius, loss=1e-3):
    return ball_certificate(size**2, size + radius, 1.0, radius, initial_loss=loss, num_outputs=1)


@pytest.mark.parametrize("radius", [0.1, 0.5, 2.0])
def test_guaranteed_mu_lies_below_the_true_infimum(radius):
    """lambda_min over B(w0, R) is (|w0| - R)^2: the sharp bound is exact, the other below it."""
    found = certified(3.0, radius)
    np.testing.assert_allclose(found.sharp_pl_constant, (3.0 - radius) ** 2, rtol=1e-12)
    assert found.pl_constant <= found.sharp_pl_constant
    np.testing.assert_allclose(found.pl_constant, max(9 - 2 * (3 + radius) * radius, 0))
    np.testing.assert_allclose(found.needed, 8e-3 / radius**2)


def test_constants_of_the_certificate_are_those_of_the_kernel_s_functions(key):
    weights, one = jnp.array([3.0, 0.0, 4.0]), jnp.ones((1, 1))
    np.testing.assert_allclose(jacobian_norm(circle, weights, one).value, 5.0)
    np.testing.assert_allclose(hessian_norm(circle, weights, one, key=key).value, 1.0)
    np.testing.assert_allclose(pl_constant(circle, weights, one).value, 25.0)


def test_binding_inequality_changes_at_the_best_radius():
    radius = best_radius(2.0, 0.5, initial_loss=0.01, num_outputs=4)
    np.testing.assert_allclose(radius, (2 * 8 * 0.01 / (2 * 2 * 2 * 0.5)) ** (1 / 3))

    def at(size, start=1.0):
        return ball_certificate(start, 2.0, 0.5, size, initial_loss=0.01, num_outputs=4)

    def spare(size):
        found = at(size)
        return 1 - found.hessian_share - found.radius_share

    assert spare(radius) > max(spare(0.9 * radius), spare(1.1 * radius))
    assert at(0.2 * radius).binding == "radius"
    assert at(5 * radius).binding == "Hessian norm"
    assert at(radius, start=0.0).binding == "initial eigenvalue"
    assert not at(radius, start=0.0).certified
    assert bool(at(radius, start=10.0).certified)
    assert np.isinf(best_radius(2.0, 0.0, initial_loss=0.01, num_outputs=4))


def test_certified_balls_hold_a_solution_and_all_of_gradient_descent():
    """Targets near the start: x |w|^2/2 = y is solved at |w| = sqrt(2 y)."""
    start, radius, target = 3.0, 0.4, 4.46
    loss = 0.5 * (start**2 / 2 - target) ** 2
    found = certified(start, radius, loss)
    assert found.certified
    assert abs(start - np.sqrt(2 * target)) <= radius
    weight, beta = start, (start + radius) ** 2 + abs(start**2 / 2 - target)
    for _ in range(100):
        weight -= weight * (weight**2 / 2 - target) / beta
        assert abs(weight - start) <= radius
    assert not certified(start, radius, 1e3 * loss).certified


def test_certificates_broadcast_and_trace():
    sizes = jnp.array([0.1, 1.0, 4.0])
    found = jax.jit(lambda r: certified(3.0, r))(sizes)
    for i, size in enumerate(sizes):
        np.testing.assert_allclose(found.pl_constant[i], certified(3.0, size).pl_constant)
    assert list(found.binding) == ["radius", "Hessian norm", "Hessian norm"]


def test_radii_are_in_order_and_contain_the_path_of_a_linear_system():
    """For F(w) = a w the path is straight: exactly |r0|/a long, half of each radius."""
    slope, residual = 2.0, 3.0
    found = radii(slope**2, slope**2, residual**2 / 2, jacobian_norm=slope)
    np.testing.assert_allclose(found, 2 * residual / slope)
    found = radii(0.5, 9.0, 2.0, jacobian_norm=2.0)
    np.testing.assert_allclose(found, [2 * 2 / 0.5**0.5, 2 * 2 * 2 / 0.5, 2 * 3 * 2 / 0.5])
    assert found.path < found.square_loss < found.smooth
    assert np.isinf(radii(0.0, 9.0, 2.0, jacobian_norm=2.0)).all()
    np.testing.assert_array_equal(radii(0.0, 9.0, 0.0, jacobian_norm=2.0), np.zeros(3))


def test_mean_losses_convert_by_the_number_of_examples(key):
    """Radii are the same; mu, beta and L of the mean are those of the sum over b."""
    params, inputs = problems.mlp_params(key, (3, 8, 1)), jax.random.normal(key, (4, 3))
    mean = pl_constant(problems.mlp, params, inputs).value
    top = jacobian_norm(problems.mlp, params, inputs).value
    total = radii(4 * mean, 4 * 7.0, 4 * 0.2, jacobian_norm=top)
    np.testing.assert_allclose(total.path, radii(mean, 7.0, 0.2, jacobian_norm=0.0).path)
    np.testing.assert_allclose(total.smooth, radii(mean, 7.0, 0.2, jacobian_norm=0.0).smooth)
    kernel = problems.reference_kernel(problems.mlp, params, inputs).reshape(4, 4)
    np.testing.assert_allclose(4 * mean, np.linalg.eigvalsh(kernel)[0], rtol=1e-6)


def test_rejects_no_outputs():
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        ball_certificate(1.0, 1.0, 1.0, 1.0, initial_loss=1.0, num_outputs=0)
    with pytest.raises(ValueError, match="num_outputs must be at least 1, got 0"):
        best_radius(1.0, 1.0, initial_loss=1.0, num_outputs=0)
