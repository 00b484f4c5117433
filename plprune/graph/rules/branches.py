# SPDX-License-Identifier: Apache-2.0
"""Branches, of which one is run.

    b:f32[4] = cond[branches=({ lambda ; x. let y = sin x in (y,) } { ... })] i a:f32[4]

* label: every branch is labelled as if it stood here; what goes in one goes in all.
* fill: what is known of b is what is known of the results of all branches.
* resize: the branches at the new sizes.
* follow: what holds of all branches; a batch is lost where its rows choose.
"""

from collections.abc import Sequence
from typing import Any

import jax

from plprune.graph.entries import ANYTHING, Primitive
from plprune.graph.following.combining import joined
from plprune.graph.following.walk import LOST, Value, Walk, varying
from plprune.graph.shrinking.fills import Fills, meet
from plprune.graph.shrinking.labels import Labels
from plprune.graph.shrinking.resizing import Resizing
from plprune.graph.tracing import Equation


def label_cond(labels: Labels, equation: Equation) -> None:
    """What goes in one branch goes in all."""
    for branch in equation.subgraphs:
        labels.enter(branch, [labels[v] for v in equation.inputs[1:]])
    first, *others = equation.subgraphs
    for k, output in enumerate(equation.outputs):
        labels[output] = labels[first.outputs[k]]
        for branch in others:
            labels.unify_arrays(output, branch.outputs[k], equation)


def fill_cond(fills: Fills, equation: Equation) -> None:
    """Only what holds in every branch holds afterwards."""
    for branch in equation.subgraphs:
        fills.enter(branch, [fills[v] for v in equation.inputs[1:]])
    first, *others = equation.subgraphs
    for k, output in enumerate(equation.outputs):
        fill = fills[first.outputs[k]]
        for branch in others:
            fill = meet(fill, fills[branch.outputs[k]])
        fills[output] = fill


def resize_cond(resizing: Resizing, equation: Equation, values: Sequence[Any]) -> list[Any]:
    """Branches that are evaluated at the new sizes."""

    def branch(body):
        return lambda *operands: tuple(resizing.evaluate(body, operands))

    return list(jax.lax.switch(values[0], [branch(b) for b in equation.subgraphs], *values[1:]))


def follow_cond(walk: Walk, equation: Equation, values: list[Value]) -> list[Value]:
    """What holds of all branches."""
    which, *operands = values
    outs = [walk.run(body, operands) for body in equation.subgraphs]
    results = []
    for options in zip(*outs, strict=True):
        value = options[0]
        for other in options[1:]:
            value = joined(walk, equation, value, other)
        patterns = tuple((v.key, varying(v.layout, value.layout)) for v in options)
        fault = value.fault
        if which.fault:
            fault = walk.fault(LOST, equation, "branches on rows of")
        results.append(value._replace(key=walk.named("cond", which.key, patterns), fault=fault))
    return results


ENTRIES = {"cond": Primitive(label_cond, fill_cond, resize_cond, follow_cond, ANYTHING)}
