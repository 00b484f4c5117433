# SPDX-License-Identifier: Apache-2.0
"""A checkpoint of transformer-like layers: written by orbax, cut, and compared, in one process.

`large_checkpoint.py save|cut|compare FOLDER SCALE`; a scale of 1 is 4 GB.
"""

import json
import re
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

import plprune
from plprune.data.prepared import quiet

ITEMS = ("params", "mu", "nu")  # Adam's moments have the parameters' tree.
CHUNK = 2**26  # Bytes: orbax would else write each array of one device as one chunk.
LAYERS = 9
_PROCESS = Path("/proc/self")


def shapes(scale: float) -> dict:
    """Of the parameters: 1.4 GB of float32 at a scale of 1."""
    width, hidden = int(1024 * scale), int(16384 * scale)

    def of(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    layers = {
        f"layer_{k}": {"up": of(width, hidden), "down": of(hidden, width)} for k in range(LAYERS)
    }
    return {"embedding": of(int(65536 * scale), width), **layers}


def apply(params, tokens):
    """Residual layers without attention."""
    x = params["embedding"][tokens]
    for k in range(LAYERS):
        layer = params[f"layer_{k}"]
        x = x + jax.nn.gelu(x @ layer["up"]) @ layer["down"]
    return x


def plan(scale: float):
    """Groups and every second node of each, which about halves the bytes."""
    inputs = jax.ShapeDtypeStruct((2, 8), jnp.int32)
    groups = plprune.find_nodes(apply, shapes(scale), inputs)
    rng = np.random.default_rng(0)
    keep = {name: rng.permutation(n) < 0.38 * n for name, n in groups.prunable.items()}
    return groups, keep


def save(folder: Path, scale: float) -> dict:
    """One item after the other, so that the memory is that of one."""
    for seed, item in enumerate(ITEMS):
        draw = np.random.default_rng(seed).random
        tree = jax.tree.map(lambda s, draw=draw: draw(s.shape, np.float32), shapes(scale))
        arguments = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=CHUNK), tree)
        with quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(folder / "source" / item, tree, save_args=arguments)
    return {"bytes": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())}


def cut(folder: Path, scale: float) -> dict:
    """`shrink_checkpoint`, with its memory above that at the start."""
    groups, keep = plan(scale)
    ocp.PyTreeCheckpointHandler()  # What importing takes is no part of it.
    before = _memory("VmRSS")
    if _PROCESS.is_dir():
        (_PROCESS / "clear_refs").write_text("5")  # The peak is counted from here.
    start, used = time.perf_counter(), time.process_time()
    done = plprune.shrink_checkpoint(folder / "source", folder / "target", groups, keep)
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - used,
        "mib": _memory("VmHWM") - before,
        "start_mib": before,
        **done._asdict(),
    }


def compare(folder: Path, scale: float) -> dict:
    """Whether each item is, byte for byte, what `shrink` makes of it in memory."""
    groups, keep = plan(scale)
    same = True
    for item in ITEMS:
        small = plprune.shrink(_read(folder / "source" / item), groups, keep)
        read = _read(folder / "target" / item)
        same &= jax.tree.structure(small) == jax.tree.structure(read)
        for a, b in zip(jax.tree.leaves(small), jax.tree.leaves(read), strict=True):
            same &= np.asarray(a).tobytes() == b.tobytes()
    return {"same": same}


def _read(item):
    handler = ocp.PyTreeCheckpointHandler()
    plain = jax.tree.map(
        lambda _: ocp.RestoreArgs(restore_type=np.ndarray), handler.metadata(item).tree
    )
    with quiet():
        return handler.restore(item, args=ocp.args.PyTreeRestore(restore_args=plain))


def _memory(name):
    """MiB of this process, by Linux's name for it."""
    status = _PROCESS / "status"
    found = re.search(rf"{name}:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) / 1024 if found else float("nan")


if __name__ == "__main__":
    task = {"save": save, "cut": cut, "compare": compare}[sys.argv[1]]
    sys.stdout.write(json.dumps(task(Path(sys.argv[2]), float(sys.argv[3]))) + "\n")
