# SPDX-License-Identifier: Apache-2.0
"""Checkpoints read back as orbax gives them, on the host."""

import hashlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from plprune.data.prepared import quiet


def save(path, tree, chunk_bytes=None, **options):
    """Write a checkpoint by orbax itself."""
    arguments = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=chunk_bytes), tree)
    with quiet(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options)) as checkpointer:
        checkpointer.save(path, tree, save_args=arguments)
    return path


def restored(path):
    """The arrays of a checkpoint by orbax's names, as NumPy's."""
    handler = ocp.PyTreeCheckpointHandler()
    tree = handler.metadata(path).tree
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    with quiet():
        whole = handler.restore(path, args=ocp.args.PyTreeRestore(restore_args=arguments))
    pairs = zip(jax.tree.leaves(tree), jax.tree.leaves(whole), strict=True)
    return {described.name: np.asarray(array) for described, array in pairs}


def sums(folder):
    """A sum of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in files}
