# SPDX-License-Identifier: Apache-2.0
"""Whether a smaller module computes what the resized function does."""

import re
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plprune.nodes.sampling import MILD, NEAR, OWN, RANDOM, Draw, Sampler, other_shapes
from plprune.types import Apply, Inputs

SLACK = 300  # Multiples of the coarsest type's eps that two orders of summation may differ by.
HALF_SLACK = 16  # The same in half precision, where 300 eps would be more than everything.
# The programs run once or twice: compiling them takes longer than they do.
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Disagreement(Exception):
    """Why a smaller module is not the resized function, to follow "the smaller module"."""


class Sides(NamedTuple):
    """Two functions of the same cut variables and inputs."""

    reference: Apply  # The resized function.
    native: Apply  # The smaller module.


class _Unavailable(Exception):
    """The comparison cannot be made in these types."""


def check_agreement(
    own: Sides,
    wide: Sides,
    sampler: Callable[[bool], Sampler],
    inputs: Inputs,
    *,
    brief: bool = False,
) -> None:
    """Disagreement unless the two sides are one function, as far as examples can tell.

    Structure, shapes and types of the outputs must be the same, at `inputs` and at one other batch
    size and length if the reference accepts another. So must the values at the model's own weights
    and at random ones of several sizes; in float64, unless the reference does not run in it.

    Args:
      own: Both sides in the model's own types.
      wide: Both sides where computing in float64 is asked for.
      sampler: From whether float64 is wanted to the draws.
      inputs: Shapes.
      brief: Compare at one shape and at one draw, to tell which groups are at fault.

    Raises:
      Disagreement: as above, or where no random draw gives finite outputs.
    """
    narrow = sampler(False)
    _check_types(own, narrow.variables(OWN), inputs)
    shapes = [inputs] if brief else [inputs, *_other_shape(own, narrow, inputs)]
    try:
        # Some draws overflow, on both sides alike: that is no error of the user's.
        with jax.debug_nans(False), jax.debug_infs(False):
            try:
                with jax.enable_x64(True):
                    _compare(wide, sampler(True), shapes, brief)
            except _Unavailable:
                _compare(own, narrow, shapes, brief)
    except _Unavailable as error:
        raise Disagreement(f"cannot be compared ({error.__cause__})") from error.__cause__


def _attempt(run, *args):
    """What the smaller module gives; whatever it raises becomes a disagreement."""
    try:
        return run(*args)
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise Disagreement(f"does not run ({type(error).__name__}: {said})") from error


def _check_types(sides, variables, inputs):
    theirs = jax.eval_shape(sides.reference, variables, inputs)
    ours = _attempt(jax.eval_shape, sides.native, variables, inputs)
    if jax.tree.structure(ours) != jax.tree.structure(theirs):
        structures = jax.tree.structure(ours), jax.tree.structure(theirs)
        raise Disagreement("returns {}, not {}".format(*structures))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            raise Disagreement(f"returns {_spell(a)}, not {_spell(b)}")


def _spell(leaf):
    return f"{leaf.dtype.name}{list(leaf.shape)}"


def _other_shape(sides, sampler, inputs) -> list[Inputs]:
    """The first other shape that the reference accepts, if any; the smaller module must too."""
    variables = sampler.variables(OWN)
    for other in other_shapes(inputs, sampler.reach):
        try:
            jax.eval_shape(sides.reference, variables, other)
        except Exception:  # Whatever the model raises, it does not take this shape.
            continue
        _check_types(sides, variables, other)
        return [other]
    return []


def _compare(sides, sampler, shapes, brief):
    """Values at the first shape, then at the last one, then wherever outputs are finite."""
    first = last = _Pair(sides, sampler, shapes[0])
    seen = first.agree(RANDOM[0])
    if not brief:
        first.agree(OWN)
        # Compiled only where the first shape shows nothing.
        last = _Pair(sides, sampler, shapes[-1]) if len(shapes) > 1 else first
        for draw in RANDOM[0 if len(shapes) > 1 else 1 :]:
            seen |= last.agree(draw)
    for draw in NEAR if sampler.may_loop_on else (*MILD, *NEAR):
        seen |= seen.all() or last.agree(draw)
    if not seen.all():
        raise Disagreement("cannot be compared, as no random weights give finite outputs")


class _Pair:
    """Both sides compiled for one shape of inputs."""

    def __init__(self, sides, sampler, shapes):
        self.sampler, self.shapes = sampler, shapes
        args = (sampler.variables(OWN), sampler.inputs(shapes, OWN))
        try:
            lowered = jax.jit(sides.reference).lower(*args)
            self.compiled = lowered.compile(_QUICK)
        except Exception as error:
            raise _Unavailable from error
        self.eps = coarsest(lowered.as_text())
        self.slack = HALF_SLACK if self.eps > jnp.finfo(jnp.float32).eps else SLACK
        self.native = _attempt(lambda: jax.jit(sides.native).lower(*args).compile(_QUICK))

    def reference(self, variables, inputs) -> list[np.ndarray]:
        """Outputs of the resized function on the host."""
        try:
            return _arrays(self.compiled(variables, inputs))
        except Exception as error:
            raise _Unavailable from error

    def agree(self, draw: Draw) -> np.ndarray:
        """Per output, whether this draw says anything; Disagreement if it speaks against."""
        variables, inputs = self.sampler.variables(draw), self.sampler.inputs(self.shapes, draw)
        theirs = self.reference(variables, inputs)
        ours = _arrays(_attempt(self.native, variables, inputs))
        gaps = [_gap(a, b) for a, b in zip(ours, theirs, strict=True)]
        allowed = [self.slack * self.eps * _scale(b) for b in theirs]
        if any(gap > most for gap, most in zip(gaps, allowed, strict=True)):
            noisy = self.reference(_shaken(variables, self.eps), inputs)
            noise = [self.slack * _gap(a, b) for a, b in zip(noisy, theirs, strict=True)]
            allowed = list(map(max, allowed, noise))
        for gap, most, b in zip(gaps, allowed, theirs, strict=True):
            if gap > most:
                raise Disagreement(
                    f"is off by {gap:.1e} of {_scale(b):.1e}: a width enters its arithmetic"
                )
        return np.array(
            [
                np.isfinite(b).any() and most <= 0.25 * _scale(b)
                for most, b in zip(allowed, theirs, strict=True)
            ],
            bool,
        )


def coarsest(program: str) -> float:
    """The largest eps of the floating-point types in a lowered program."""
    widths = {"f64": np.float64, "f32": np.float32, "f16": np.float16, "bf16": jnp.bfloat16}
    used = set(re.findall(r"[x<](bf16|f16|f32|f64)>", program))
    return max((float(jnp.finfo(widths[name]).eps) for name in used), default=0.0)


def _arrays(outputs) -> list[np.ndarray]:
    """Leaves on the host, in float64 where they are real."""

    def host(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        real = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf, np.float64) if real else np.asarray(leaf)

    return [host(leaf) for leaf in jax.tree.leaves(outputs)]


def _scale(values) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))


def _gap(ours, theirs) -> float:
    """Largest distance; infinite where integers, or the places that are not finite, differ."""
    if not np.issubdtype(theirs.dtype, np.inexact):
        return 0.0 if np.array_equal(ours, theirs) else np.inf
    finite = np.isfinite(theirs)
    if not np.array_equal(finite, np.isfinite(ours)) or not np.array_equal(
        ours[~finite], theirs[~finite], equal_nan=True
    ):
        return np.inf
    with np.errstate(over="ignore"):
        return float(np.abs(ours[finite] - theirs[finite]).max(initial=0))


def _shaken(variables, eps):
    """The same up to rounding: floats changed by up to one eps."""
    draws = np.random.default_rng(0)

    def shake(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.inexact):
            return leaf
        factors = 1 + eps * draws.uniform(-1, 1, leaf.shape)
        return jnp.asarray(np.asarray(leaf) * factors, leaf.dtype)

    return jax.tree.map(shake, variables)
