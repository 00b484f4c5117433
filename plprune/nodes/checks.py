# SPDX-License-Identifier: Apache-2.0
"""Checks of the arguments that say what to gate or keep."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from plprune.types import NodeGroups


def check_names(per_group: Any, groups: NodeGroups, argument: str) -> None:
    """ValueError unless every entry is a group's, with one real number per node."""
    if not isinstance(per_group, Mapping):
        raise ValueError(
            f"{argument} must map names of groups to one entry per node, got "
            f"{type(per_group).__name__}."
        )
    unknown = sorted(set(per_group) - set(groups), key=str)
    if unknown:
        raise ValueError(f"{argument} names {unknown}; the groups are {list(groups)}.")
    for name, values in per_group.items():
        vector(values, f"{argument}[{name!r}]", groups[name].size)


def vector(values: Any, argument: str, size: int) -> np.ndarray | Array:
    """Real numbers, as an array of the host; what is traced, or spread over hosts, as it is.

    Raises:
      ValueError: anything but real numbers or booleans, or not `size` of them in one row.
    """
    found = values if is_unseen(values) else _on_host(values, argument)
    if found.dtype != bool and not _is_real(found.dtype):
        kind = type(values).__name__ if found.dtype == object else found.dtype
        raise ValueError(f"{argument} must hold real numbers or booleans, got {kind}.")
    if found.shape != (size,):
        raise ValueError(f"{argument} must have shape {(size,)}, got {found.shape}.")
    return found


def is_unseen(values: Any) -> bool:
    """Whether an array's numbers cannot be looked at: it is traced, or spread over hosts."""
    if not isinstance(values, jax.Array):
        return False
    try:
        return not (values.is_fully_addressable or values.is_fully_replicated)
    except jax.errors.ConcretizationTypeError:
        return True


def _is_real(dtype):
    return jnp.issubdtype(dtype, np.integer) or jnp.issubdtype(dtype, np.floating)


def _on_host(values, argument):
    if isinstance(values, list | tuple) and any(map(is_unseen, values)):
        return jnp.stack(values)
    try:
        return np.asarray(values)
    except (ValueError, TypeError):  # Rows of several lengths; random keys.
        shown = " ".join(repr(values).split())[:60]
        raise ValueError(f"{argument} must be one row of numbers, got {shown}.") from None


def keep_mask(kept: Any, argument: str, size: int) -> Bool[Array | np.ndarray, " g"]:
    """One entry of `keep` as booleans: of the host, or traced.

    Raises:
      ValueError: anything but booleans or exact 0 and 1, `size` of them. Values cannot be seen
        under jit, so that traced masks must be booleans by type.
    """
    values = vector(kept, argument, size)
    if values.dtype == bool:
        return values
    if not isinstance(values, np.ndarray):
        raise ValueError(f"{argument} must be of booleans where it is traced, got {values.dtype}.")
    other = values[(values != 0) & (values != 1)]
    if other.size:
        raise ValueError(
            f"{argument} must hold booleans, or exact 0 and 1, one per node; got {other[0]}."
        )
    return values.astype(bool)


def keep_masks(keep: Any, groups: NodeGroups) -> dict[str, Bool[Array | np.ndarray, " g"]]:
    """`keep` as booleans, possibly traced.

    Raises:
      ValueError: an unknown name, or an entry that is no mask of its group's nodes.
    """
    check_names(keep, groups, "keep")
    return {n: keep_mask(kept, f"keep[{n!r}]", groups[n].size) for n, kept in keep.items()}


def concrete_keep(keep: Mapping[str, Any], groups: NodeGroups) -> dict[str, np.ndarray]:
    """`keep` as boolean host arrays.

    Raises:
      ValueError: as `keep_masks`; a traced array, a group that loses all its nodes, or a group that
        cannot be pruned loses any; the message has the reason.
    """
    concrete: dict[str, np.ndarray] = {}
    for name, kept in keep_masks(keep, groups).items():
        if not isinstance(kept, np.ndarray):
            raise ValueError(
                f"keep[{name!r}] must be concrete, got a traced array: shapes depend on it. Call "
                "outside of jit, or close nodes by mask, which takes traced booleans."
            )
        if not kept.any():
            raise ValueError(f"keep[{name!r}] must keep at least one of {kept.size} nodes, got 0.")
        if not kept.all() and not groups[name].prunable:
            raise ValueError(f"keep[{name!r}] must be all True: {groups[name].reason}.")
        concrete[name] = kept
    return concrete


def check_fraction(fraction: Any, argument: str) -> None:
    """ValueError unless it is one number in (0, 1], or an array whose number cannot be seen."""
    if is_unseen(fraction):
        return
    number = np.asarray(fraction)
    if number.ndim or not (number.dtype == bool or _is_real(number.dtype)) or not 0 < number <= 1:
        raise ValueError(f"{argument} must lie in (0, 1], got {fraction!s:.60}.")


def as_patterns(exclude: str | Iterable[str]) -> tuple[str, ...]:
    """Names or patterns of groups; a string is one of them, not its letters."""
    return (exclude,) if isinstance(exclude, str) else tuple(exclude)
