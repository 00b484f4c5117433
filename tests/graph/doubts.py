# SPDX-License-Identifier: Apache-2.0
"""What the graphs of a function say of the rows of its batch."""

from plprune.graph.tracing import trace
from plprune.independence import doubt


def mixing(function, params, inputs):
    """Why rows are not known to be treated apart and alike, None where they are."""
    return doubt(trace(function, params, inputs), function, params, inputs) or None
