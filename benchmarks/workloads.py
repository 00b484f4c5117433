# SPDX-License-Identifier: Apache-2.0
"""What the rows of `benchmarks.accelerator` run, each a function of its sizes."""

import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.util import find_spec
from itertools import cycle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import plprune
from benchmarks import problems
from benchmarks.contestants.networks import jacobian_kernel, net
from benchmarks.modules import drawn, in_evaluation
from plprune.functional import paired
from plprune.losses import cross_entropy, risk
from plprune.spectra import extreme_eigenpairs

Make = Callable[[nnx.Rngs], nnx.Module]
Lines = dict[str, Callable[[], Any]]  # Who computes: a call that does, and waits for nothing.
OURS, JACREV = "plprune", "vmap(jacrev)"


class Work(NamedTuple):
    """One row of the table: lines, each compared with the first."""

    table: str
    title: str
    seconds: float  # Likely for all lines on an H100, compilation included.
    lines: Callable[[], Lines]  # Makes data and calls; no call has run yet.
    compares: bool = False  # Whether all lines compute the same numbers.
    remark: Callable[[float], str] = lambda _: ""  # From the median seconds of the first line.


def net_kernel(widths: Sequence[int], num_examples: int, *, seconds: float) -> Work:
    """The tangent kernel of the ReLU net, beside vmap(jacrev) and torch.func."""
    title = f"MLP {'-'.join(map(str, widths))}, {num_examples} examples"
    make = partial(problems.mlp, tuple(widths), num_examples)
    return _arrays_kernel(title, make, widths[-1], num_examples, seconds)


def cnn_kernel(num_examples: int, *, seconds: float) -> Work:
    """The tangent kernel of the small convolutional net, beside the same."""
    title = f"CNN 16x16x3 (16, 32 channels), {num_examples} examples"
    make = partial(problems.cnn, num_examples)
    return _arrays_kernel(title, make, 10, num_examples, seconds)


def _arrays_kernel(title, make, outputs, num_examples, seconds):
    def lines():
        data = make()
        data.pop("y", None)
        inputs = data.pop("x")
        calls = _kernels(net, data, inputs, outputs)
        if find_spec("torch"):
            from benchmarks.contestants.torch_networks import kernel_call

            calls["torch.func"] = kernel_call(data, inputs)
        return calls

    rows = num_examples * outputs
    return Work("kernels", f"{title}: kernel {rows:,}", seconds, lines, compares=True)


def wide_kernel(widths: Sequence[int], num_examples: int, product: int, *, seconds: float) -> Work:
    """A kernel whose Jacobian fits nowhere, beside the rate of a product of that size."""
    layers = sum(widths[:-1]) + widths[-1] ** 2 * sum(widths[1:])

    def lines():
        data = problems.mlp(tuple(widths), num_examples)
        return {OURS: _kernels(net, data, data.pop("x"), widths[-1])[OURS]}

    def remark(median):
        rate, most = 2 * num_examples**2 * layers / median / 1e12, _product_rate(product) / 1e12
        return f"{rate:.3g} TFLOP/s of the full square, {rate / most:.0%} of a product's {most:.3g}"

    title = f"MLP {'-'.join(map(str, widths))}, {num_examples} examples"
    title += f": kernel {num_examples * widths[-1]:,}"
    return Work("kernels", title, seconds, lines, remark=remark)


def module_kernel(
    name: str, make: Make, num_images: int, side: int, outputs: int, *, seconds: float
) -> Work:
    """The tangent kernel of a Flax model in evaluation mode, beside vmap(jacrev)."""

    def lines():
        apply, params = in_evaluation(drawn(make))
        return _kernels(apply, params, problems.images(num_images, side)["x"], outputs)

    title = f"{name}, {num_images} images {side}x{side}, {outputs} outputs: kernel"
    return Work("kernels", title, seconds, lines, compares=True)


def _kernels(apply, params, inputs, outputs):
    """Ours and, where the Jacobian and its copy fit into the device's memory, vmap(jacrev)."""

    def whole(p, x):
        with jax.default_matmul_precision("highest"):  # As ours computes.
            return jacobian_kernel(apply, p, x)

    params = {name: a for name, a in params.items() if name != "y"}
    on_device = jax.device_put((params, inputs))
    ours = jax.jit(lambda p, x: plprune.tangent_kernel(apply, p, x))
    calls = {OURS: lambda: ours(*on_device)}
    jacobian = 4 * len(inputs) * outputs * sum(leaf.size for leaf in jax.tree.leaves(params))
    statistics = jax.devices()[0].memory_stats() or {}
    if 2.2 * jacobian < statistics.get("bytes_limit", 4e9):
        peer = jax.jit(whole)
        calls[JACREV] = lambda: peer(*on_device)
    return calls


@lru_cache
def _product_rate(size):
    """Operations a second of a float32 product at full precision, the best of five."""
    square = jnp.ones((size, size), jnp.float32)
    product, seconds = jax.jit(partial(jnp.matmul, precision="highest")), []
    for _ in range(6):
        start = time.perf_counter()
        jax.block_until_ready(product(square, square))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def measured(widths: Sequence[int], num_examples: int, *, seconds: float) -> Work:
    """Plain calls of `plprune.measure` at two checkpoints in turn, beside all eigenvalues."""

    def lines():
        data = problems.mlp(tuple(widths), num_examples)
        inputs, _ = jnp.asarray(data.pop("x")), data.pop("y")
        now, then = ({n: jnp.asarray(s * a, a.dtype) for n, a in data.items()} for s in (1, 1.01))
        checkpoints = cycle((now, then))

        @jax.jit
        def peer(p, x):
            with jax.default_matmul_precision("highest"):
                kernel = jacobian_kernel(net, p, x)
            rows = kernel.shape[0] * kernel.shape[1]
            return jnp.linalg.eigvalsh(kernel.reshape(rows, rows))

        return {
            "plprune.measure, plain": lambda: plprune.measure(net, next(checkpoints), inputs),
            f"{JACREV} and eigvalsh": lambda: peer(now, inputs),
        }

    title = f"MLP {'-'.join(map(str, widths))}, {num_examples} examples: measure"
    return Work("measure", title, seconds, lines)


def dense_ends(size: int, dtype: str, *, seconds: float) -> Work:
    """Both ends of a dense kernel, beside all eigenvalues."""
    wide = dtype == "float64"

    def within(function, matrix):
        def call():
            with jax.enable_x64(wide):
                return function(matrix)

        return call

    def ours(matrix):
        pairs = extreme_eigenpairs(matrix)
        return jnp.stack([pairs.smallest[0], pairs.largest])

    def lines():
        with jax.enable_x64(wide):
            scales = jnp.geomspace(1, 0.05, 2 * size, dtype=dtype)
            factor = scales * jax.random.normal(jax.random.key(0), (size, 2 * size), dtype)
            matrix = jnp.matmul(factor, factor.T, precision="highest")
        return {
            OURS: within(jax.jit(ours), matrix),
            "eigvalsh": within(
                jax.jit(lambda a: jnp.linalg.eigvalsh(a)[jnp.array([0, -1])]), matrix
            ),
        }

    title = f"Both ends of a dense kernel {size:,}, {dtype}"
    return Work("spectra", title, seconds, lines, compares=True)


def net_curvature(widths: Sequence[int], batch: int, *, seconds: float) -> Work:
    """A Hessian product of the ReLU net under cross-entropy, beside a gradient."""

    def lines():
        data = problems.mlp(tuple(widths), batch)
        inputs, labels = data.pop("x"), data.pop("y")
        return _curvature(net, data, inputs, labels)

    title = f"MLP {'-'.join(map(str, widths))}, batch {batch}: Hessian product"
    return Work("hessian", title, seconds, lines)


def module_curvature(name: str, make: Make, batch: int, side: int, *, seconds: float) -> Work:
    """The same of a Flax model in evaluation mode."""

    def lines():
        apply, params = in_evaluation(drawn(make))
        inputs = problems.images(batch, side)["x"]
        return _curvature(apply, params, inputs, np.arange(batch) % 2)

    title = f"{name}, batch {batch} of {side}x{side}: Hessian product"
    return Work("hessian", title, seconds, lines)


def _curvature(apply, params, inputs, labels):
    params, batch = jax.device_put((params, (inputs, labels)))

    def objective(p, batch):
        return risk(cross_entropy, apply(p, batch[0]), batch[1])

    gradient = jax.jit(jax.grad(objective))
    product = jax.jit(lambda p, batch: plprune.hessian_product(objective, p, batch)(p))
    return {
        "gradient": lambda: gradient(params, batch),
        "plprune.hessian_product": lambda: product(params, batch),
    }


def gate_update(
    name: str, make: Make, shape: Sequence[int], batch: int, probes: int, *, seconds: float
) -> Work:
    """One plain gate update of a Flax model without state, beside a step of Adam."""

    def lines():
        apply, params = in_evaluation(drawn(make))
        inputs = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
        params, inputs = jax.device_put((params, inputs))
        labels, adam = jnp.arange(batch) % 2, optax.adam(1e-3)
        groups = plprune.find_nodes(apply, params, inputs[:2])
        gating = plprune.pl_gating(
            adam, apply, groups, keep_fraction=0.5, key=jax.random.key(1), initial_updates=1,
            period=1, probe_size=probes,
        )  # fmt: skip

        @jax.jit
        def step(p, state):
            gradients = jax.grad(lambda q: risk(cross_entropy, apply(q, inputs), labels))(p)
            return adam.update(gradients, state, p)

        zeros, begin = jax.tree.map(jnp.zeros_like, params), adam.init(params)
        states = [gating.init(params)]

        def update():
            states.append(gating.update(zeros, states.pop(), params, probe=inputs)[1])
            return states[0].gates

        return {
            f"step of Adam, batch {batch}": lambda: step(params, begin),
            f"plprune.pl_gating, {probes} probes": update,
        }

    return Work("gating", f"{name}: one gate update, plain", seconds, lines)


def shrunk_step(name: str, make: Make, shape: Sequence[int], batch: int, *, seconds: float) -> Work:
    """A training step of momentum in evaluation mode with every other node of every group."""
    momentum = optax.sgd(0.1, momentum=0.9)

    def stepper(function, variables, inputs):
        params, rest = variables
        state = momentum.init(params)

        @jax.jit
        def step(params, rest, state, inputs):
            gradients = jax.grad(lambda p: jnp.mean(function((p, rest), inputs) ** 2))(params)
            updates, state = momentum.update(gradients, state, params)
            return optax.apply_updates(params, updates), state

        return lambda: step(params, rest, state, inputs)

    def lines():
        parts = drawn(make)
        inputs = np.random.default_rng(0).normal(size=(batch, *shape)).astype(np.float32)
        apply, (variables, inputs) = (
            paired(parts),
            jax.device_put(((parts.params, parts.state), inputs)),
        )
        groups = plprune.find_nodes(apply, variables, inputs[:2])
        keep = {name: np.arange(size) % 2 == 0 for name, size in groups.prunable.items()}
        small = plprune.shrink(variables, groups, keep)
        return {
            "plprune, half of the nodes": stepper(
                plprune.resize(apply, groups, keep), small, inputs
            ),
            "dense": stepper(apply, variables, inputs),
        }

    return Work("training", f"{name}, batch {batch}: training step", seconds, lines)
