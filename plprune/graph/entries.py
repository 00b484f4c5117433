# SPDX-License-Identifier: Apache-2.0
"""What an entry of the table of primitives says: one rule for every pass over a graph.

A rule that overlooks a parameter is silently wrong where the parameter is not at its default. So
every parameter is either read by all rules of its primitive, or known to say nothing of which
entries meet, or refused.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from plprune.graph.tracing import Equation

# What an entry says where it has no rule for a pass.
REFUSED = None  # Label: no axis that it touches shrinks. Follow: nothing is proven of its outputs.
UNKNOWN = None  # Fill: nothing is known of masked entries of its outputs.
AS_IT_IS = None  # Resize: it is evaluated with the parameters that it has.
ANYTHING = None  # Reads: no parameter says which entries meet.

# Of any primitive: how and where numbers are computed and stored, not which.
HARMLESS = frozenset(
    """precision preferred_element_type accuracy sharding out_sharding weak_type update_consts
    indices_are_sorted unique_indices is_stable index_dtype""".split()  # noqa: SIM905
)


class Linear(NamedTuple):
    """What a primitive is to a parameter that enters it; by default, something computed with it."""

    # (graph, equation, axes) -> axes: the first operand is moved around only, and this is where
    # the marks of its dimensions come to lie.
    moves: Callable[..., Any] | None = None
    # Operands whose slices, scaled, scale the same slices of the outputs; the others constant.
    scales: tuple[int, ...] = ()
    # Operands from this one on say where the first is read, along axes that cannot shrink.
    places: int | None = None
    # Operands from this one on scale slices of the outputs if the same slices of all are scaled.
    joins: int | None = None
    # equation -> dimensions of either operand that are multiplied and summed over.
    contracts: Callable[[Equation], Any] | None = None
    # (equation, position, shapes) -> the `Factoring` of the derivative in that operand, or None.
    factors: Callable[..., Any] | None = None


class Primitive(NamedTuple):
    """What is done with the equations of one primitive."""

    label: Callable[..., None] | None  # (labels, equation): which axes shrink together.
    fill: Callable[..., None] | None  # (fills, equation): what is known of masked entries.
    resize: Callable[..., list[Any]] | None  # (resizing, equation, values) -> outputs when shrunk.
    follow: Callable[..., list[Any]] | None  # (walk, equation, values) -> what an axis becomes.
    reads: str | None  # Names of the parameters that its rules read.
    linear: Linear = Linear()
    rounds: bool = True  # Results are rounded to their dtype, unlike entries that only move.


NO_ENTRY = Primitive(REFUSED, UNKNOWN, AS_IT_IS, REFUSED, reads="")


class Primitives(dict[str, Primitive]):
    """Entries by the names of the primitives, from several families."""

    def __init__(self, families: Mapping[str, Mapping[str, Primitive]]):
        """Merge the families' entries."""
        super().__init__(item for family in families.values() for item in family.items())
        self._known = {name: HARMLESS.union((p.reads or "").split()) for name, p in self.items()}

    def unread(self, equation: Equation) -> str | None:
        """A parameter with a value that no rule takes into account, None where there is none."""
        entry = self.get(equation.name, NO_ENTRY)
        if entry.reads is ANYTHING:
            return None
        known = self._known.get(equation.name, HARMLESS)
        asked = (name for name, value in equation.params.items() if value is not None)
        return next((name for name in asked if name not in known), None)

    def of(self, equation: Equation) -> Primitive:
        """The entry that speaks of an equation, `NO_ENTRY` where none reads all that it says."""
        if self.unread(equation):
            return NO_ENTRY
        return self.get(equation.name, NO_ENTRY)


def in_place(graph: Any, equation: Equation, axes: tuple[Any, ...]) -> tuple[Any, ...]:
    """The `moves` of a primitive that leaves every dimension where it is."""
    del graph, equation
    return axes
