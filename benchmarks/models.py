# SPDX-License-Identifier: Apache-2.0
"""Public models: how many groups are found, in what time, and whether shrinking them is exact.

`benchmarks/public` builds small members of each; a package that is not installed is skipped with
the reason. `--only KIND` takes one kind.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import plprune
from benchmarks.gating import say
from benchmarks.public import SHELVES
from benchmarks.public.adaptors import Entry, Model, lively

TOLERANCE = 1e-5  # Of the largest output.
LIMIT = 2**21  # Entries of a dense Jacobian with which a kernel is compared.


class Row(NamedTuple):
    """What is known of one model."""

    groups: int
    prunable: int
    gateable: int
    refused: Counter  # Reason in short -> groups.
    seconds: float
    gap: float  # Masked against shrunk.
    gates: float | None  # Gates at zero against shrunk, where a group has gates.
    kernel: str
    native: str
    bits: int


def examine(entry: Entry) -> Row:
    """All checks of one model, in float64 if its package computes in it."""
    try:
        with jax.enable_x64(True):
            model = _wide(_built(entry))
            jax.eval_shape(model.apply, model.params, model.inputs)
            return _examine(model, 64)
    except ImportError:
        raise
    except Exception as error:
        if isinstance(error, Unequal):
            raise
    with jax.enable_x64(False):
        return _examine(_built(entry), 32)


def _built(entry):
    model = entry.build()
    return model._replace(params=lively(model.params))


class Unequal(Exception):
    """Two functions that should be one."""


def _examine(model: Model, bits: int) -> Row:
    apply, params, inputs, *_ = model
    start = time.process_time()
    groups = plprune.find_nodes(apply, params, inputs)
    seconds = time.process_time() - start
    keep = halves(groups)
    gates = {name: keep[name] for name in keep if groups[name].gateable}
    found = _differences(model, groups, keep, gates)
    for what, gap in zip(("masked", "gated"), found, strict=True):
        if not gap < TOLERANCE:
            raise Unequal(f"{what} and shrunk differ by {gap:.0e}")
    gap, gated = found[0], found[1] if gates else None
    reasons = Counter(in_short(g.reason) for g in groups.values() if not g.prunable)
    gateable = sum(g.gateable for g in groups.values())
    kernel, native = _kernel(model, groups), _native(model, groups, keep)
    counts = len(groups), len(groups.prunable), gateable
    return Row(*counts, reasons, seconds, gap, gated, kernel, native, bits)


def _differences(model, groups, keep, gates):
    """Masked against shrunk; gates of zero, which leave the slices that make a node, likewise."""
    apply, params, inputs, *_ = model
    small, smaller = (plprune.resize(apply, groups, k) for k in (keep, gates))

    @jax.jit
    def outputs(params, inputs):  # One program compiles in half the time of four.
        cut, less = (plprune.shrink(params, groups, k) for k in (keep, gates))
        gated = plprune.gate(params, groups, {name: k * 1.0 for name, k in gates.items()})
        pairs = (
            (apply(plprune.mask(params, groups, keep), inputs), small(cut, inputs)),
            (apply(gated, inputs), smaller(less, inputs)),
        )
        return pairs if gates else pairs[:1]

    pairs = outputs(params, inputs)
    return [*(difference(*pair) for pair in pairs), 0.0][:2]


def halves(groups: Any, seed: int = 0) -> dict[str, np.ndarray]:
    """Half of the nodes of every group that can be pruned, drawn at random, and at least one."""
    rng = np.random.default_rng(seed)
    keep = {}
    for name, size in groups.prunable.items():
        keep[name] = np.zeros(size, bool)
        keep[name][rng.permutation(size)[: -(-size // 2)]] = True
    return keep


def difference(one: Any, other: Any) -> float:
    """The largest over all outputs, relative to the largest entry of each."""
    gaps = [0.0]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        if a.dtype.kind not in "fc":
            a, b = a.astype(np.float64), b.astype(np.float64)
        if not np.isfinite(a).all():
            raise Unequal("the masked function is not finite")
        gaps.append(float(abs(a - b).max() / max(abs(a).max(), 1e-12)) if a.size else 0.0)
    return max(gaps)


def _kernel(model: Model, groups: Any) -> str:
    """Layer by layer against whole Jacobians; why not, where examples are not independent."""
    if groups.dependence:
        return "examples mix"
    outputs = jax.eval_shape(model.apply, model.params, model.inputs)
    size = sum(np.size(x) for x in jax.tree.leaves(model.params))
    if not isinstance(outputs, jax.ShapeDtypeStruct) or outputs.dtype.kind != "f":
        return "outputs are a tree"
    if outputs.size * size > LIMIT:
        return "not compared"
    ours = plprune.tangent_kernel(model.apply, model.params, model.inputs)
    gap = difference(_plain_kernel(model), ours)
    if not gap < 1e-4:
        raise Unequal(f"kernels differ by {gap:.0e}")
    return "yes"


def _plain_kernel(model):
    leaves, structure = jax.tree.flatten(model.params)
    moved = [k for k, x in enumerate(leaves) if jnp.issubdtype(x.dtype, jnp.floating)]

    def outputs(values):
        at = dict(zip(moved, values, strict=True))
        tree = jax.tree.unflatten(structure, [at.get(k, x) for k, x in enumerate(leaves)])
        out = model.apply(tree, model.inputs)
        return out.reshape(len(out), -1)

    jacobians = _jacobian(outputs)([leaves[k] for k in moved])
    b, c = jacobians[0].shape[:2]
    whole = jnp.concatenate([x.reshape(b * c, -1) for x in jacobians], 1)
    product = jnp.matmul(whole, whole.T, precision="highest")
    return product.reshape(b, c, b, c)


def _jacobian(outputs):
    """Reverse, or forward where a loop of unknown length stands in the way."""

    def either(values):
        try:
            return jax.jit(jax.jacrev(outputs))(values)
        except (ValueError, NotImplementedError, TypeError):
            return jax.jit(jax.jacfwd(outputs))(values)

    return either


def _native(model: Model, groups: Any, keep: dict) -> str:
    """Whether `shrink_model` makes a smaller NNX module; the first line of why not."""
    if model.module is None:
        return ""
    try:
        plprune.shrink_model(model.module, groups, keep, call=model.call)
    except ValueError as error:
        return "no: " + str(error).splitlines()[0][:90]
    return "yes"


def _wide(model: Model) -> Model:
    def cast(leaf):
        return leaf.astype(jnp.float64) if leaf.dtype == jnp.float32 else leaf

    params, inputs = jax.tree.map(cast, (model.params, model.inputs))
    return model._replace(params=params, inputs=inputs)


_SHORT = (
    ("an axis of the inputs", "inputs"),
    ("an axis of the function's output", "outputs"),
    (r"no parameter makes it", "made by no parameter"),
    (r"does not use", "unused"),
    (r"may be a mean", "width of a mean"),
    (r"every position of", "all of an axis at once"),
    (r"belongs to two nodes", "two nodes share a position"),
    (r"^(no rule for [^ ]+)", r"\1"),
    (r"^([a-z_\-0-9]+) at \S+ (.*)$", r"\1 \2"),
)


def in_short(reason: str) -> str:
    """A reason without lines of code."""
    for pattern, text in _SHORT:
        if found := re.search(pattern, reason):
            return found.expand(text)
    return reason


def line(entry: Entry, row: Row) -> str:
    """A row of the table."""
    refused = ", ".join(f"{n} {reason}" for reason, n in row.refused.most_common())
    cells = (
        entry.kind, f"{entry.package} {metadata.version(entry.package)}", entry.name,
        row.groups, row.prunable, row.gateable, refused, f"{row.seconds:.2f}",
        f"{row.gap:.0e}" + ("" if row.bits == 64 else " (float32)"), row.kernel, row.native,
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = (
    "kind", "package", "model", "groups", "prunable", "gateable", "refused", "seconds",
    "masked - shrunk", "kernel exact", "shrink_model",
)  # fmt: skip


def main(repeats: int, kind: str | None = None) -> int:
    """Print the table and what was skipped; 1 where a model is not exact."""
    del repeats
    entries = [e for shelf in SHELVES if kind in (None, shelf.kind) for e in shelf]
    titles = {f"{e.package}, {e.name}": partial(_line_of, e) for e in entries}
    return print_rows(HEAD, titles)


def _line_of(entry):
    return line(entry, examine(entry))


def print_rows(head: Sequence[str], lines: Mapping[str, Callable[[], str]]) -> int:
    """Print a table line by line, and what was skipped; 1 where a line raises."""
    say("| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    skipped, failed = [], []
    for title, made in lines.items():
        try:
            say(made())
        except (ImportError, metadata.PackageNotFoundError) as error:
            skipped.append(f"{title}: {_first_line(error)}")
        except Exception as error:
            failed.append(f"{title}: {_first_line(error)}")
    for heading, texts in (("Skipped", skipped), ("Failed", failed)):
        if texts:
            say(f"\n{heading}:\n" + "\n".join(f"* {text}" for text in texts))
    return int(bool(failed))


def _first_line(error):
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:160] if text else ''}"


TABLES = {shelf.kind: partial(main, kind=shelf.kind) for shelf in SHELVES}
