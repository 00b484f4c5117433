# SPDX-License-Identifier: Apache-2.0
"""While tests run the library's annotations are checked, those of arrays and all others."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree, TypeCheckError

from plprune.nodes.checks import as_patterns
from plprune.nodes.scaling import along, per_position
from plprune.spectra.factors import blocked_cholesky
from plprune.types import Estimate, Gates, Member, NodeGroups, Params
from tests.checking import names_arrays


def test_axes_of_one_letter_must_agree():
    def factor(rows):
        return blocked_cholesky(jnp.eye(5), jnp.ones(()), jnp.ones(()), jnp.ones((rows, 2)))

    factor(5)
    with pytest.raises(TypeCheckError, match="parameter 'update'"):
        factor(6)
    with pytest.raises(TypeCheckError, match="parameter 'values'"):
        per_position(jnp.ones((6, 2)), Member("leaf", 0, np.arange(6)))


def test_what_is_no_array_is_checked_too():
    with pytest.raises(BeartypeCallHintViolation, match="patterns"):
        as_patterns(3)
    with pytest.raises(BeartypeCallHintViolation, match="axis"):
        along(jnp.ones(3), "first", 2)


T = TypeVar("T")
ARRAYS = [
    Float[Array, " n"], Int[Array, ""] | None, tuple[Float[Array, " n"], ...], Gates, PyTree,
    Params, PyTree[int], Callable[[Float[Array, " n"]], int], Callable[[int], Float[Array, " n"]],
    dict[str, list[Float[Array, " n"]]], PRNGKeyArray | Float[Array, " n"], T, "Float[Array, 'n']",
]  # fmt: skip
OTHERS = [
    int, str | None, None, Any, Array, Estimate, NodeGroups, dict[str, list[int]],
    Callable[..., Any], Callable[[int, str], None], Mapping[str, tuple[int, ...]], type,
]  # fmt: skip


@pytest.mark.parametrize("annotation", ARRAYS)
def test_annotations_that_may_name_axes_are_known(annotation):
    assert names_arrays(annotation)


@pytest.mark.parametrize("annotation", OTHERS)
def test_annotations_without_axes_are_known(annotation):
    assert not names_arrays(annotation)
