# SPDX-License-Identifier: Apache-2.0
"""Which of four ways contracts a term at the least cost in operations and memory traffic."""

from typing import Literal

from plprune.graph.linear.taps import Term

# "gram": products of Gram matrices over positions; "jacobian": the term's columns of a Jacobian
# that all such terms share; "shared": one sum over positions for all outputs, then their scales;
# "steady": all examples share the cotangents, whose products with each other are made once.
Route = Literal["gram", "jacobian", "shared", "steady"]
# What moving one number through memory costs, in floating-point operations.
_TRAFFIC = 10


def outer_route(term: Term) -> Route:
    """The route without a materialised Jacobian, where there is one."""
    return "jacobian" if term.sizes is None else "gram"


def cheapest_route(term: Term, num_seeds: int, num_outputs: int, num_examples: int) -> Route:
    """The route of the lowest cost per pair of examples.

    Args:
      term: From `find_taps`.
      num_seeds: Rows of the kernel per example, c, or 1 for its trace over outputs.
      num_outputs: c.
      num_examples: Partners of an example, among which the cost of forming what belongs to it
        alone is divided.
    """
    if term.sizes is None:
        return "jacobian"
    summed = num_outputs // max(num_seeds, 1)
    costs: dict[Route, float] = {
        "gram": _gram_cost(term, num_seeds, summed),
        "jacobian": _jacobian_cost(term, num_seeds, summed, num_examples),
    }
    if term.narrow is not None:
        costs["shared"] = _shared_cost(term, num_seeds, summed, num_examples)
    elif term.is_steady and term.sizes[1] > 1:  # At one position, "gram" is as cheap.
        costs["steady"] = _steady_cost(term, num_seeds, summed, num_examples)
    return min(costs, key=lambda route: costs[route])


def _gram_cost(term, seeds, summed):
    g, s, i, o = term.sizes
    pairs = seeds**2
    operand = g * s**2 * (1 if term.is_lookup else 2 * i)
    traffic = 2 * _TRAFFIC * pairs if g * s == 1 else _TRAFFIC * g * s**2 * (1 + 2 * pairs)
    return operand + g * s**2 * pairs * 2 * (o * summed + 1) + traffic


def _jacobian_cost(term, seeds, summed, num_examples):
    """Without traffic for the result: the large product is shared with other Jacobians."""
    g, s, i, o = term.sizes
    entries = g * i * o * summed
    form = (2 * s + _TRAFFIC) * entries * seeds
    return 2 * seeds**2 * entries + form / max(num_examples, 1)


def _shared_cost(term, seeds, summed, num_examples):
    g, s, i, o = term.sizes
    scaled = g * o * summed * seeds
    form = (2 * s + _TRAFFIC) * g * i * o
    return (
        2 * g * o * i
        + 2 * scaled * seeds
        + _TRAFFIC * (g * o + scaled + seeds**2)
        + form / max(num_examples, 1)
    )


def _steady_cost(term, seeds, summed, num_examples):
    g, s, i, o = term.sizes
    pairs, entries = seeds**2, g * s * i
    weigh = (2 * s + _TRAFFIC) * entries * pairs
    once = 2 * g * s**2 * o * summed * pairs
    return 2 * pairs * entries + weigh / max(num_examples, 1) + once / max(num_examples, 1) ** 2
