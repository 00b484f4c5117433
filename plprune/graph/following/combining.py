# SPDX-License-Identifier: Apache-2.0
"""What becomes of values in one equation, from the role of each axis of its operands.

An axis goes over into an axis of the result, entry by entry, or it is worked on. From the roles
alone follows where the followed axis runs, where its entries influence each other, and an
expression for the result without that axis.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from plprune.graph.following.layouts import (
    FOLLOWED,
    OWN,
    SAME,
    Factor,
    Layout,
    aligned,
    length,
    places,
    uniform_layout,
)
from plprune.graph.following.walk import LOST, MIXED, UNEQUAL, Value, Walk, worst
from plprune.graph.tracing import Equation

Role = int | tuple  # Axis of the result that an operand's axis becomes, or how it is worked on.


class Source(NamedTuple):
    """Where an axis of a result comes from."""

    operands: tuple[int, ...]
    parts: list[tuple[int, tuple[str, ...]]]  # Size of each factor, its kind in every operand.


def combined(
    walk: Walk,
    equation: Equation,
    values: Sequence[Value],
    roles: Sequence[Sequence[Role]],
    *,
    how: str = "moves entries along",
    kind: str = LOST,
    made: str = OWN,
    params: tuple = (),
    is_move: bool = False,
) -> list[Value]:
    """Outputs of an equation whose operands' axes have the given roles.

    Args:
      walk: Whose values they are.
      equation: The equation.
      values: Of its inputs.
      roles: Per input the role of each axis: a number is the axis of the outputs that it becomes,
        entry by entry; a tuple says how it is worked on.
      how: What happens to the followed axis where it is worked on, for people.
      kind: Of that fault.
      made: SAME if outputs are constant along axes that no operand has.
      params: What else decides on the values, besides the roles.
      is_move: The entries stay what they are.
    """
    faults = [v.fault for v in values if v.fault]
    for value, own in zip(values, roles, strict=True):
        if any(isinstance(own[d], tuple) for d in places(value.layout)):
            faults.append(walk.fault(kind, equation, how))
    results = []
    for k, variable in enumerate(equation.outputs):
        shape = walk.shape(variable)
        sources = _sources(values, roles, shape, made)
        if sources is None:
            fault = walk.fault(LOST, equation, "splits")
            key = walk.named("variable", variable)
            fault = worst([*faults, fault], MIXED, LOST)
            results.append(Value(uniform_layout(shape, OWN), key, fault))
            continue
        layout = _layout([source.parts for source in sources])
        seen = [*faults, *_meetings(walk, equation, values, sources)]
        key = _expression(walk, equation, values, roles, sources, params, is_move)
        if len(equation.outputs) > 1:
            key = walk.named("output", k, key)
        layout = _plain(layout) if worst(seen, LOST, MIXED) else layout
        results.append(Value(layout, key, worst(seen, MIXED, LOST, UNEQUAL)))
    return results


def _sources(values, roles, shape, made) -> list[Source] | None:
    """Per axis of an output, which operands it comes from in which factors."""
    sources = []
    for axis, size in enumerate(shape):
        own = [
            (i, value.layout[d])
            for i, value in enumerate(values)
            for d, role in enumerate(roles[i])
            if role == axis
        ]
        parts = aligned([a for _, a in own]) if own else []
        if parts is None:
            return None
        if prod(n for n, _ in parts) != size:  # New, or an axis of size 1 that is repeated.
            kinds = (SAME,) * len(own) if own else (made,)
            parts = [(size, kinds)]
        sources.append(Source(tuple(i for i, _ in own), parts))
    return sources


def _layout(parts) -> Layout:
    return tuple(tuple(Factor(n, _together(kinds)) for n, kinds in axis) for axis in parts)


def _together(kinds):
    if FOLLOWED in kinds:
        return FOLLOWED
    return OWN if OWN in kinds else SAME


def _meetings(walk, equation, values, sources):
    """Faults where the followed axis meets another one, or arrays that vary along it."""
    count = 0
    for operands, parts in sources:
        for _, kinds in parts:
            if FOLLOWED not in kinds:
                continue
            count += 1
            others = [values[i] for i, kind in zip(operands, kinds, strict=True) if kind == OWN]
            if any(value.is_followed for value in others):
                yield walk.fault(MIXED, equation, "pairs entries across")
            elif others:
                yield walk.fault(UNEQUAL, equation, "meets an array that is not constant along")
    if count > 1:
        yield walk.fault(MIXED, equation, "pairs entries across")


def _expression(walk, equation, values, roles, sources, params, is_move):
    """The number of an output's expression: operands, and how their entries lie in it.

    Neither the followed axis nor what is constant along axes enters, so that the same expression
    has the same number whatever the size of the followed axis.
    """
    order = []  # Sizes of the output's own factors.
    taken = [[] for _ in values]  # Per operand, axis and place among them of those that are its.
    for axis, (operands, parts) in enumerate(sources):
        for size, kinds in parts:
            if _together(kinds) == OWN:
                for i, kind in zip(operands, kinds, strict=False):  # New factors are of none.
                    if kind == OWN:
                        taken[i].append((axis, len(order)))
                order.append(size)
    read = [_reading(*each) for each in zip(values, roles, taken, strict=True)]
    if is_move and read[0] == (values[0].key, tuple(range(len(order)))):
        return values[0].key
    dtype = str(getattr(walk.graph.avals[equation.outputs[0]], "dtype", None))
    name = "move" if is_move else equation.name
    return walk.named(name, dtype, params, tuple(read), tuple(order))


def _reading(value, roles, taken):
    """An operand, and in its order where its own factors go or how they are worked on."""
    entries = []
    for axis, role in zip(value.layout, roles, strict=True):
        if isinstance(role, tuple):
            kept = [factor for factor in axis if factor.kind != FOLLOWED]
            entries += [(role, *kept)] if kept else []
        else:
            entries += [place for out, place in taken if out == role]
    return value.key, tuple(entries)


def _plain(layout):
    """The followed axis as any other."""
    return tuple(
        tuple(Factor(f.size, OWN if f.kind == FOLLOWED else f.kind) for f in axis)
        for axis in layout
    )


def joined(walk: Walk, equation: Equation, first: Value, second: Value) -> Value:
    """What holds of either of two arrays of one shape; the key is the first one's."""
    parts = [aligned(pair) for pair in zip(first.layout, second.layout, strict=True)]
    faults = [first.fault, second.fault]
    if None in parts:
        faults.append(walk.fault(LOST, equation, "splits"))
        shape = [length(axis) for axis in first.layout]
        return Value(uniform_layout(shape, OWN), first.key, worst(faults, MIXED, LOST))
    sources = [Source((0, 1), part) for part in parts]
    faults += _meetings(walk, equation, [first, second], sources)
    layout = _layout(parts)
    layout = _plain(layout) if worst(faults, LOST, MIXED) else layout
    return Value(layout, first.key, worst(faults, MIXED, LOST, UNEQUAL))


def kept_roles(rank: int, worked: Mapping[Any, Role], *, dropped: bool = True) -> list[Role]:
    """Roles of an operand's axes, of which some are worked on: the others close up, or stay."""
    roles, place = [], 0
    for d in range(rank):
        roles.append(worked.get(d, place))
        place += d not in worked or not dropped
    return roles
