# SPDX-License-Identifier: Apache-2.0
"""Problems whose minimisers, and the projection on them, are known exactly.

Derived in docs/mathematics/alpha_beta.md. Run them with 64-bit numbers.
"""

import numpy as np

from experiments.alpha_beta.problems.bounded import (
    Problem,
    interpolated,
    line,
    near_wells,
    shallow_well,
    shared_line,
    two_wells,
    wells,
)
from experiments.alpha_beta.problems.learning import factorization, relu_logistic

__all__ = [
    "EXAMPLES",
    "Problem",
    "factorization",
    "interpolated",
    "line",
    "near_wells",
    "relu_logistic",
    "shallow_well",
    "shared_line",
    "two_wells",
    "wells",
]

EXAMPLES = {
    "line": line,
    "two_wells": two_wells,
    "shallow_well": shallow_well,
    "near_wells": near_wells,
    "shared_line": lambda: shared_line(np.linspace(0.0, 1.0, 4), 4),
    "wells": lambda: wells(1.2 * np.eye(3)),
    "factorization": factorization,
    "relu_logistic": relu_logistic,
}
