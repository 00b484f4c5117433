# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of one loop by orbax's `CheckpointManager`: the newest three, in the background.

One process writes and reads them all, so that hosts need no folder in common. The background is a
thread of our own, and all of a loop is one array of orbax's: where a folder cannot be made or an
array not be read, the threads of its asynchronous saves wait for one another for minutes, and what
they did with the other arrays ends in tracebacks. Importing orbax takes a second: whoever needs no
checkpoint does not.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

MAX_TO_KEEP = 3
logging.getLogger("absl").setLevel(logging.CRITICAL)  # What orbax logs as an error, it raises too.


class Checkpoints:
    """Bytes by step in `folder`, each step marked as this loop's own."""

    def __init__(self, folder: Path, mark: str):
        self.mark = mark
        own = jax.process_index()  # Of several processes, orbax would wait for all to come here.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=own, active_processes={own}, barrier_sync_key_prefix=f"process_{own}"
        )
        options = ocp.CheckpointManagerOptions(
            max_to_keep=MAX_TO_KEEP,
            create=False,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=False,
            multiprocessing_options=alone,
        )
        folder.mkdir(exist_ok=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None

    def steps(self) -> list[int]:
        """Steps of which there is a checkpoint, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def save(self, step: int, content: bytes) -> None:
        """Begin to save; raises what went wrong with the save before."""
        items = ocp.args.Composite(
            loop=ocp.args.ArraySave(np.frombuffer(content, np.uint8)),
            about=ocp.args.JsonSave({"mark": self.mark}),
        )
        self._wait()
        self._pending = self._thread.submit(self._manager.save, step, args=items)

    def read(self, step: int) -> bytes:
        """The bytes of a step.

        Raises:
          ValueError: it cannot be read, or is another loop's.
        """
        items = ocp.args.Composite(loop=ocp.args.ArrayRestore(), about=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=items)
            mark, content = found["about"]["mark"], np.asarray(found["loop"], np.uint8).tobytes()
        except Exception as error:  # Damage may surface anywhere in orbax and tensorstore.
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"step {step} is damaged: {said}") from None
        if mark != self.mark:
            raise ValueError(f"step {step} belongs to another run.")
        return content

    def close(self) -> None:
        """Wait until the last is on disk; raises what went wrong with it."""
        self._thread.shutdown()
        self._manager.close()
        self._wait()

    def _wait(self):
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()
