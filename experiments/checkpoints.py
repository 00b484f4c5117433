# SPDX-License-Identifier: Apache-2.0
"""The state of a loop as a checkpoint, and back; read by process 0 and told to the others."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import devices
from experiments.carrying import Here
from plprune.storage import checkpoint_metadata, load_checkpoint, steps


def contents(here: Here) -> dict[str, Any]:
    """What is saved of a loop, gathered from all devices."""
    return {"state": devices.on_host(here.state), "infos": here.infos}


def newest(
    folder: Path, state: Any, metadata: Mapping[str, Any], tell: Callable[[str], None]
) -> Here | None:
    """The newest checkpoint of a loop that is whole, its own and like `state`; None without.

    Args:
      folder: Of the loop's checkpoints; need not exist.
      state: The loop's first state, for structure, shapes, types and devices.
      metadata: Entries by which a checkpoint is this loop's own.
      tell: Is told why any was refused.
    """
    message = devices.shared(lambda: _message(_read(folder, state, metadata, tell)))
    if not message:
        return None
    size = int.from_bytes(message[:8], "little")
    header, content = json.loads(message[8 : 8 + size]), message[8 + size :]
    infos = {}
    for name, shape, dtype in header["infos"]:
        infos[name], content = _first(content, shape, np.dtype(dtype))
    leaves = []
    for leaf in jax.tree.leaves(state):
        data = _data(leaf)
        array, content = _first(content, data.shape, np.dtype(data.dtype))
        leaves.append(_like(array, leaf))
    found = jax.tree.unflatten(jax.tree.structure(state), leaves)
    return Here(header["done"], found, infos, header["over"])


def _read(folder, state, metadata, tell):
    for step in reversed(steps(folder)):
        try:
            found = checkpoint_metadata(folder, step)
            like = {"state": state, "infos": _described(found)}
            checkpoint = load_checkpoint(folder, like, step=step, metadata=metadata)
        except (ValueError, OSError) as error:
            tell(str(error))
        else:
            tree = checkpoint.tree
            return Here(step, tree["state"], tree["infos"], bool(found.get("over")))
    return None


def _described(metadata):
    try:
        named = metadata.get("infos", {}).items()
        return {
            name: jax.ShapeDtypeStruct(tuple(shape), np.dtype(dtype))
            for name, (shape, dtype) in named
        }
    except (TypeError, ValueError, AttributeError):
        raise ValueError("infos of a checkpoint must be shapes and types.") from None


def _message(here):
    if here is None:
        return b""
    infos = [[k, list(v.shape), str(v.dtype)] for k, v in here.infos.items()]
    header = json.dumps({"done": here.done, "over": here.over, "infos": infos}).encode()
    arrays = [*here.infos.values(), *map(_data, jax.tree.leaves(here.state))]
    body = [np.asarray(array).tobytes() for array in arrays]
    return b"".join([len(header).to_bytes(8, "little"), header, *body])


def _first(content, shape, dtype):
    """The array that `content` begins with, and the rest of it."""
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    return np.frombuffer(content[:size], dtype).reshape(shape).copy(), content[size:]


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(leaf):
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(array, leaf):
    """`array` as a leaf of the kind, and on the devices, of `leaf`."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jax.numpy.asarray(array), impl=jax.random.key_impl(leaf))
    if not isinstance(leaf, jax.Array):
        return array
    if len(leaf.sharding.device_set) == 1:
        return jax.numpy.asarray(array)
    return jax.make_array_from_callback(array.shape, leaf.sharding, lambda where: array[where])
