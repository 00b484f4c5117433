# SPDX-License-Identifier: Apache-2.0
"""Constants of an optimisation problem: PL, Lipschitz, their ratio, and what they certify."""

from plprune.constants.balls import SeenInBall, seen_in_ball
from plprune.constants.certificates import Certificate, Radii, ball_certificate, best_radius, radii
from plprune.constants.condition import condition_number
from plprune.constants.hessian_norm import hessian_norm, hessian_norms, jacobian_norm
from plprune.constants.lipschitz import lipschitz_constant
from plprune.constants.matrix_free import MatrixFreeEnds, Progress, matrix_free_ends
from plprune.constants.measurement import Measurement, measure
from plprune.constants.pl import (
    MinibatchConstants,
    minibatch_pl_constants,
    pl_constant,
)
from plprune.constants.random_jacobians import (
    jacobian_log_condition,
    log_condition_bound,
    log_conditions,
)
from plprune.constants.rates import (
    AlmostPL,
    Rate,
    almost_pl,
    descent_rate,
    iteration_bound,
    stochastic_rate,
)

__all__ = [
    "AlmostPL",
    "Certificate",
    "MatrixFreeEnds",
    "Measurement",
    "MinibatchConstants",
    "Progress",
    "Radii",
    "Rate",
    "SeenInBall",
    "almost_pl",
    "ball_certificate",
    "best_radius",
    "condition_number",
    "descent_rate",
    "hessian_norm",
    "hessian_norms",
    "iteration_bound",
    "jacobian_log_condition",
    "jacobian_norm",
    "lipschitz_constant",
    "log_condition_bound",
    "log_conditions",
    "matrix_free_ends",
    "measure",
    "minibatch_pl_constants",
    "pl_constant",
    "radii",
    "seen_in_ball",
    "stochastic_rate",
]
