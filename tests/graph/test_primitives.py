# SPDX-License-Identifier: Apache-2.0
"""The table of primitives: what it holds, and that it is all that the passes know."""

import ast
from pathlib import Path

import jax.numpy as jnp
import pytest
from jax import lax
from jax.extend.core import Primitive, primitives

import plprune
from plprune.graph.entries import ANYTHING, REFUSED, Primitives
from plprune.graph.following.layouts import FOLLOWED, OWN, Factor, uniform_layout
from plprune.graph.following.walk import Value, Walk
from plprune.graph.linear.roles import roles
from plprune.graph.linear.taps import factoring
from plprune.graph.primitives import FAMILIES, PRIMITIVES
from plprune.graph.shrinking.fills import Fills
from plprune.graph.shrinking.labels import Labels
from plprune.graph.tracing import BODIES, INLINED, trace
from plprune.nodes import find_nodes
from tests.graph.doubts import mixing

pytestmark = pytest.mark.usefixtures("models_broadcast")
PARAMS, INPUTS = {"in": jnp.ones((3, 4)), "out": jnp.ones((4, 2))}, jnp.ones((5, 3))

novel = Primitive("novel")
novel.def_abstract_eval(lambda x: x)


def apply(p, x):
    return novel.bind(x @ p["in"]) @ p["out"]


def named_primitives(path):
    """Names that the code of a file compares with the name of an equation."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Compare):
            continue
        sides = [node.left, *node.comparators]
        if any(isinstance(s, ast.Attribute) and s.attr == "name" for s in sides):
            constants = (n for s in sides for n in ast.walk(s) if isinstance(n, ast.Constant))
            yield from (n.value for n in constants if isinstance(n.value, str))


def test_every_primitive_is_listed_once():
    assert sum(map(len, FAMILIES.values())) == len(PRIMITIVES)


def test_names_are_those_of_jax():
    public = (getattr(m, name) for m in (primitives, lax, lax.linalg) for name in dir(m))
    names = {getattr(value, "name", None) for value in public}
    newer = {"log2", "one_minus_square", "polynomial"}  # Since jax 0.12.
    absent = PRIMITIVES.keys() - names - newer
    assert absent == {"pvary", "ragged_dot_general", "reshard"}  # Not public.


def test_no_pass_knows_a_primitive_that_is_not_listed():
    root = Path(plprune.__file__).parent
    files = [*(root / "graph").rglob("*.py"), *(root / "nodes").rglob("*.py")]
    known = {name for path in files for name in named_primitives(path)}
    assert {"conv_general_dilated", "gather"} <= known <= PRIMITIVES.keys()
    assert BODIES.keys() <= PRIMITIVES.keys()
    assert PRIMITIVES.keys().isdisjoint(INLINED)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_entries_have_a_rule_for_every_pass_or_say_that_there_is_none(name):
    entry = PRIMITIVES[name]
    rules = {entry.label, entry.fill, entry.resize, entry.follow, entry.linear.factors}
    assert all(map(callable, rules - {None}))
    assert entry.follow is not REFUSED
    assert entry.label is not REFUSED or (entry.fill, entry.resize) == (None, None)
    assert entry.reads is ANYTHING or len(set(entry.reads.split())) == len(entry.reads.split())
    assert entry.linear.factors is None or name in ("gather",) or entry.linear.contracts


def test_an_unknown_primitive_is_refused_by_name_in_every_pass():
    groups = find_nodes(apply, PARAMS, INPUTS)
    assert not groups.prunable
    assert "no rule for novel at" in str(groups)
    assert mixing(apply, PARAMS, INPUTS).startswith("novel is not known to keep apart")
    graph = trace(lambda p, _: novel.bind(p["in"]) @ p["out"], PARAMS, INPUTS)
    equation, product = graph.equations
    assert equation.name == "novel"
    assert factoring(equation, 0, [(3, 4), (3, 4)]) is None
    assert (0, 0) in roles(graph, 2).produced
    assert product.outputs[0] in roles(graph, 2).readers


def test_one_entry_teaches_a_primitive_to_every_pass():
    table = Primitives({**FAMILIES, "novel": {"novel": PRIMITIVES["sin"]}})
    graph = trace(apply, PARAMS, INPUTS)
    labels = Labels(graph, 2, table)
    Fills(labels, [0, 1], baked=False)
    assert len(labels.atoms.members(labels[graph.inputs[1]][0])) == 4
    start = [Value(uniform_layout(v.shape, OWN), k) for k, v in enumerate(PARAMS.values())]
    batch = Value(((Factor(5, FOLLOWED),), (Factor(3, OWN),)), 2)
    (output,) = Walk(graph, {}, table).run(graph, [*start, batch])
    assert output.fault is None
    assert output.is_followed
