# SPDX-License-Identifier: Apache-2.0
"""Where and how a graph is walked over, which takes no arithmetic of its own."""

import gc
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import jax


@contextmanager
def undisturbed() -> Iterator[None]:
    """On the CPU, and without searches for garbage.

    What a graph asks for is many small arrays: on an accelerator each would be a launch and a
    transfer. And it is many small objects that live on, among which the collector of cycles finds
    nothing, but takes a large part of a second each time where much is imported.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _on_host():
            yield
    finally:
        if collects:
            gc.enable()


def _on_host() -> AbstractContextManager:
    try:
        on_accelerator = jax.default_backend() != "cpu"
        host = jax.local_devices(backend="cpu")[0] if on_accelerator else None
    except RuntimeError:  # There is no backend for the CPU, or none at all.
        host = None
    return nullcontext() if host is None else jax.default_device(host)
