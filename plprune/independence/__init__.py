# SPDX-License-Identifier: Apache-2.0
"""The one check that a model treats its examples independently, for all that evaluates them so.

What is computed one example at a time (tangent kernels, Hessians of single outputs, scores of
examples) is another function's where an output depends on other examples, on its place in the
batch or on the number of examples. The graphs prove most models; where they do not, one run at the
values at hand decides. Explained in docs/mathematics/graph.md.
"""

from plprune.independence.checks import (
    NotProvenError,
    alone,
    check_independent,
    doubt,
    is_proven,
    on_its_word,
    read_or_refuse,
    run_where_independent,
    settle,
)
from plprune.independence.trial import batch_size

__all__ = [
    "NotProvenError",
    "alone",
    "batch_size",
    "check_independent",
    "doubt",
    "is_proven",
    "on_its_word",
    "read_or_refuse",
    "run_where_independent",
    "settle",
]
