# SPDX-License-Identifier: Apache-2.0
"""The devices of a run: one mesh over all of them, in one process or several.

``--devices N`` spreads data and kernel rows over N devices; ``--distributed`` joins the processes
that were started with the same command on other machines. `joined` gives the runtime a `Devices`;
the experiments' own functions find the mesh in jax's context, so that whatever jit has compiled is
compiled for the mesh of its caller. Process 0 alone writes; what it finds on disk it tells the
others, so that no folder need be shared.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils

from experiments.cli import RunOptions
from plprune.kernels import sharded_kernel, tangent_kernel

AXIS = "data"


class Devices(NamedTuple):
    """How many devices and processes a run has, and which of them this is."""

    count: int = 1
    processes: int = 1
    process: int = 0

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes."""
        return self.process == 0

    def shared(self, work: Callable[[], bytes]) -> bytes:
        """What ``work()`` returns in process 0, in every process; its errors too.

        Raises:
          ValueError: in every process, where process 0 raised ValueError or OSError.
        """
        if self.processes == 1:
            return work()
        content, failure = b"", None
        if self.writes:
            try:
                content = b"0" + work()
            except (ValueError, OSError) as error:
                content, failure = b"1" + str(error).encode(), error
        content = _broadcast(content, from_here=self.writes)
        if failure is not None:
            raise failure
        if content[:1] == b"1":
            raise ValueError(content[1:].decode())
        return content[1:]


ALONE = Devices()


@contextmanager
def joined(options: RunOptions) -> Iterator[Devices]:
    """The devices of a run; inside of the block its mesh is jax's own.

    Raises:
      ValueError: fewer devices than asked for, or processes that do not find each other.
    """
    if not options.are_several:
        yield ALONE
        return

    _emulate(options)
    if options.distributed:
        _initialize(options)
    try:
        mesh = _mesh(options.devices)
        with jax.set_mesh(mesh):
            yield Devices(mesh.size, jax.process_count(), jax.process_index())
    finally:
        if options.distributed:
            jax.distributed.shutdown()


def count() -> int:
    """How many devices the run is spread over; inside of a compiled function too."""
    return max(1, jax.sharding.get_abstract_mesh().size)


def check_divide(sizes: Mapping[str, int]) -> None:
    """Raise ValueError where the devices of the run divide none of the named sizes."""
    if sizes and all(size % count() for size in sizes.values()):
        name, size = next(iter(sizes.items()))
        raise ValueError(f"devices must divide {name}, which is {size}, got {count()}.")


def spread(tree: Any, *, axis: int = 0) -> Any:
    """`tree` with one axis of every array over the devices; as it is where there is one device.

    Training data are spread over their examples, or the rows of indices of minibatches over theirs
    (``axis=1``); jit then does the rest. An array whose axis the devices do not divide is copied
    to all of them. Results are those of one device but for the order of sums.
    """
    if count() == 1:
        return tree
    return jax.tree.map(lambda leaf: _placed(leaf, _spec(jax.numpy.shape(leaf), axis)), tree)


def replicate(tree: Any) -> Any:
    """`tree` on every device of the run."""
    if count() == 1:
        return tree
    return jax.tree.map(lambda leaf: _placed(leaf, jax.P()), tree)


def divided(tree: Any, *, axis: int = 0) -> Any:
    """`spread` for arrays inside a compiled function."""

    def divide(leaf):
        spec = _spec(leaf.shape, axis)
        return jax.lax.with_sharding_constraint(leaf, spec) if len(spec) else leaf

    return tree if count() == 1 else jax.tree.map(divide, tree)


def whole(tree: Any) -> Any:
    """`replicate` for arrays inside a compiled function."""
    return tree if count() == 1 else jax.lax.with_sharding_constraint(tree, jax.P())


def kernel(apply: Callable, params: Any, inputs: Any, **options: Any) -> Any:
    """`plprune.tangent_kernel`, its rows over the devices of the run where they divide them."""
    if count() == 1 or jax.tree.leaves(inputs)[0].shape[0] % count():
        return tangent_kernel(apply, params, inputs, **options)
    mesh = jax.sharding.get_abstract_mesh()
    return sharded_kernel(apply, params, inputs, mesh=mesh, axis=AXIS, **options)


def on_host(tree: Any) -> Any:
    """Every array of `tree` whole, as a copy in NumPy; all processes call it together.

    A copy, because on a CPU NumPy's array would be the device's own buffer, which may be donated.
    """

    def gathered(leaf):
        if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
            return np.array(leaf)
        return np.array(multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(gathered, tree)


def _broadcast(content, *, from_here):
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(content), np.int32)))
    buffer = np.zeros(size, np.uint8)
    if from_here:
        buffer[:] = np.frombuffer(content, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(buffer), np.uint8).tobytes()


def _spec(shape, axis):
    """The devices along `axis` where they divide it; else every device has all."""
    split = len(shape) > axis and shape[axis] and shape[axis] % count() == 0
    return jax.P(*[None] * axis, AXIS) if split else jax.P()


def _placed(leaf, spec):
    sharding = jax.sharding.NamedSharding(jax.sharding.get_mesh(), spec)
    if jax.process_count() == 1:
        return jax.device_put(leaf, sharding)
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        return leaf  # Every process has made the same.
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])


def _emulate(options):
    """On a machine without accelerators, the processor stands for so many devices."""
    count = (options.devices or 1) // (options.processes or 1)
    if count > 1:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:  # Some backend is in use already: what it has must do.
            return


def _initialize(options):
    named = {} if options.coordinator is None else {
        "coordinator_address": options.coordinator,
        "num_processes": options.processes,
        "process_id": options.process,
    }  # fmt: skip
    try:
        jax.distributed.initialize(**named)
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"--distributed: {said} Name them: --coordinator HOST:PORT --processes P --process I."
        ) from None


def _mesh(count):

    devices, processes = jax.devices(), jax.process_count()
    count = count or len(devices)
    if count > len(devices) or count % processes:
        raise ValueError(
            f"devices must be at most the {len(devices)} there are"
            + (f" and a multiple of the {processes} processes" if processes > 1 else "")
            + f", got {count}."
        )
    # As many of each process, so that no process is left without.
    own = count // processes
    by_process: dict[int, list] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    chosen = [device for group in by_process.values() for device in group[:own]]
    return jax.make_mesh(
        (count,), (AXIS,), devices=chosen, axis_types=(jax.sharding.AxisType.Auto,)
    )
