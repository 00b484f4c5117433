# SPDX-License-Identifier: Apache-2.0
"""The devices of a run: one mesh over all of them, in one process or several.

``--devices N`` spreads data and kernel rows over N devices; ``--distributed`` joins the processes
that were started with the same command on other machines. Process 0 alone writes; what it finds on
disk it tells the others, so that no folder need be shared.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

AXIS = "data"
LARGEST = 2**20  # No machine has more devices; a typing error has.


class Machine(NamedTuple):
    """What the command line says of it."""

    devices: int | None = None  # None: one, or all of them where processes are distributed.
    distributed: bool = False
    coordinator: str | None = None  # HOST:PORT of process 0; None: as the cluster tells.
    processes: int | None = None
    process: int | None = None


class _Team:
    """What `joined` has set up; one at a time."""

    mesh: Any = None
    processes = 1
    process = 0


def check(machine: Machine) -> None:
    """Raise ValueError for a machine that cannot be."""
    if machine.devices is not None and not 1 <= machine.devices <= LARGEST:
        raise ValueError(f"devices must lie in [1, {LARGEST}], got {machine.devices}.")
    explicit = machine.coordinator, machine.processes, machine.process
    if not machine.distributed and explicit != (None, None, None):
        raise ValueError("--coordinator, --processes and --process need --distributed.")
    if machine.coordinator is None:
        if explicit != (None, None, None):
            raise ValueError("--processes and --process need --coordinator.")
        return
    host, _, port = machine.coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"coordinator must be HOST:PORT, got {machine.coordinator!r}.")
    if machine.processes is None or machine.process is None:
        raise ValueError("--coordinator needs --processes and --process.")
    if not 0 <= machine.process < machine.processes:
        raise ValueError(f"process must lie in [0, {machine.processes}), got {machine.process}.")


def are_several(machine: Machine) -> bool:
    """Whether work is to be spread."""
    return machine.distributed or machine.devices not in (None, 1)


@contextmanager
def joined(machine: Machine) -> Iterator[None]:
    """The mesh of `machine` for the time of the block; nothing at all for one device.

    Raises:
      ValueError: fewer devices than asked for, or processes that do not find each other.
    """
    check(machine)
    if not are_several(machine):
        yield
        return
    _emulate(machine)
    if machine.distributed:
        _initialize(machine)
    try:
        _Team.mesh = _mesh(machine.devices)
        yield
    finally:
        _leave(machine)


def mesh() -> Any:
    """The `jax.sharding.Mesh` of the run with its one axis `AXIS`; None on one device."""
    return _Team.mesh


def count() -> int:
    """How many devices the run is spread over."""
    return 1 if _Team.mesh is None else _Team.mesh.size


def check_divide(sizes: Mapping[str, int]) -> None:
    """Raise ValueError where the devices of the run divide none of the named sizes."""
    if sizes and all(size % count() for size in sizes.values()):
        name, size = next(iter(sizes.items()))
        raise ValueError(f"devices must divide {name}, which is {size}, got {count()}.")


def writes() -> bool:
    """Whether this process is the one that writes."""
    return _Team.process == 0


def spread(tree: Any, *, axis: int = 0) -> Any:
    """`tree` with one axis of every array over the devices; as it is where there is one device.

    Training data are spread over their examples, or the rows of indices of minibatches over theirs
    (``axis=1``); jit then does the rest. An array whose axis the devices do not divide is copied
    to all of them. Results are those of one device but for the order of sums.
    """
    if _Team.mesh is None:
        return tree
    import jax

    return jax.tree.map(lambda leaf: _placed(leaf, _spec(jax.numpy.shape(leaf), axis)), tree)


def divided(tree: Any, *, axis: int = 0) -> Any:
    """`spread` for arrays inside a compiled function; it is compiled for the run's devices."""
    if _Team.mesh is None:
        return tree
    import jax

    def divide(leaf):
        spec = _spec(leaf.shape, axis)
        return jax.lax.with_sharding_constraint(leaf, _sharding(spec)) if len(spec) else leaf

    return jax.tree.map(divide, tree)


def whole(tree: Any) -> Any:
    """`replicate` for arrays inside a compiled function."""
    if _Team.mesh is None:
        return tree
    import jax

    return jax.lax.with_sharding_constraint(tree, _sharding(jax.sharding.PartitionSpec()))


def replicate(tree: Any) -> Any:
    """`tree` on every device of the run."""
    if _Team.mesh is None:
        return tree
    import jax
    from jax.sharding import PartitionSpec

    return jax.tree.map(lambda leaf: _placed(leaf, PartitionSpec()), tree)


def on_host(tree: Any) -> Any:
    """Every array of `tree` but random keys whole, as NumPy's; all processes call it together."""
    import jax
    import numpy as np

    def whole(leaf):
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
            return leaf  # Replicated: nobody spreads keys.
        if getattr(leaf, "is_fully_addressable", True) or leaf.is_fully_replicated:
            return np.asarray(leaf)
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(whole, tree)


def kernel(apply: Callable, params: Any, inputs: Any, **options: Any) -> Any:
    """`plprune.tangent_kernel`, its rows over the devices of the run where they divide them."""
    import jax

    from plprune.kernels import sharded_kernel, tangent_kernel

    count = jax.tree.leaves(inputs)[0].shape[0]
    if _Team.mesh is None or count % _Team.mesh.size:
        return tangent_kernel(apply, params, inputs, **options)
    return sharded_kernel(apply, params, inputs, mesh=_Team.mesh, axis=AXIS, **options)


def shared(work: Callable[[], bytes]) -> bytes:
    """What ``work()`` returns in process 0, in every process; its errors too.

    Raises:
      ValueError: in every process, where process 0 raised ValueError or OSError.
    """
    if _Team.processes == 1:
        return work()
    content, failure = b"", None
    if writes():
        try:
            content = b"0" + work()
        except (ValueError, OSError) as error:
            content, failure = b"1" + str(error).encode(), error
    content = _broadcast(content)
    if failure is not None:
        raise failure
    if content[:1] == b"1":
        raise ValueError(content[1:].decode())
    return content[1:]


def _broadcast(content):
    import numpy as np
    from jax.experimental.multihost_utils import broadcast_one_to_all

    size = int(broadcast_one_to_all(np.asarray(len(content), np.int32)))
    buffer = np.zeros(size, np.uint8)
    if writes():
        buffer[:] = np.frombuffer(content, np.uint8)
    return np.asarray(broadcast_one_to_all(buffer), np.uint8).tobytes()


def _spec(shape, axis):
    """The devices along `axis` where they divide it; else every device has all."""
    from jax.sharding import PartitionSpec

    split = len(shape) > axis and shape[axis] and shape[axis] % _Team.mesh.size == 0
    return PartitionSpec(*[None] * axis, AXIS) if split else PartitionSpec()


def _sharding(spec):
    from jax.sharding import NamedSharding

    return NamedSharding(_Team.mesh, spec)


def _placed(leaf, spec):
    import jax
    import numpy as np

    sharding = _sharding(spec)
    if _Team.processes == 1:
        return jax.device_put(leaf, sharding)
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        return leaf  # Jit takes it for what every process has.
    array = np.asarray(leaf)
    return jax.make_array_from_callback(array.shape, sharding, lambda where: array[where])


def _emulate(machine):
    """On a machine without accelerators, the processor stands for so many devices."""
    import jax

    count = (machine.devices or 1) // (machine.processes or 1)
    if count > 1:
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError:  # Some backend is in use already: what it has must do.
            return


def _initialize(machine):
    import jax

    options = {} if machine.coordinator is None else {
        "coordinator_address": machine.coordinator,
        "num_processes": machine.processes,
        "process_id": machine.process,
    }  # fmt: skip
    try:
        jax.distributed.initialize(**options)
    except (ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise ValueError(
            f"--distributed: {said} Name them: --coordinator HOST:PORT --processes P --process I."
        ) from None
    _Team.processes, _Team.process = jax.process_count(), jax.process_index()


def _leave(machine):
    """What was compiled for the mesh is forgotten with it."""
    import jax

    if _Team.mesh is not None:
        jax.clear_caches()
    _Team.mesh, _Team.processes, _Team.process = None, 1, 0
    if machine.distributed:
        jax.distributed.shutdown()


def _mesh(count):
    import jax

    devices = jax.devices()
    count = count or len(devices)
    if count > len(devices) or count % _Team.processes:
        raise ValueError(
            f"devices must be at most the {len(devices)} there are"
            + (f" and a multiple of the {_Team.processes} processes" if _Team.processes > 1 else "")
            + f", got {count}."
        )
    # As many of each process, so that no process is left without.
    own = count // _Team.processes
    by_process: dict[int, list] = {}
    for device in devices:
        by_process.setdefault(device.process_index, []).append(device)
    chosen = [device for group in by_process.values() for device in group[:own]]
    return jax.make_mesh(
        (count,), (AXIS,), devices=chosen, axis_types=(jax.sharding.AxisType.Auto,)
    )
