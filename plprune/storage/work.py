# SPDX-License-Identifier: Apache-2.0
"""A folder that is made step by step, goes on after it was interrupted, and appears complete."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from plprune.storage.places import beside
from plprune.storage.trees import FORMAT, MANIFEST, MANIFEST_SUM, file_sum, files_in, write_manifest

_CONTENT, _JOURNAL = "content", "journal"


class Work:
    """The hidden folder beside a target in which it is made, and what of it is done.

    Args:
      target: What it is renamed to in the end; must not be there, unless it is this work's result.
      identity: A sum of what decides on the content; what another work left is thrown away.

    Raises:
      ValueError: the target exists.
    """

    def __init__(self, target: Path, identity: str):
        self.target, self.identity = target, identity
        self.folder = beside(target, "shrinking")
        self.content = self.folder / _CONTENT
        self.done: set[str] = set()
        if os.path.lexists(target) and _identity(target) != identity:
            raise ValueError(f"target must not exist, got {target}.")

    def begin(self) -> bool:
        """Whether there is something to do; then the folder is there, as far as it was made."""
        if os.path.lexists(self.target):
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        done = self._journal()
        if done is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.content.mkdir(parents=True)
            self._note(self.identity)
        self.done = done or set()
        return True

    def mark(self, step: str) -> None:
        """Note that a step is done, and what it made on disk."""
        self._note(step)
        self.done.add(step)

    def _note(self, line):
        with (self.folder / _JOURNAL).open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _journal(self) -> set[str] | None:
        """Steps that are done; None where there is no such work, or it was another one's."""
        try:
            lines = (self.folder / _JOURNAL).read_text().splitlines(True)
            # The last one may have been cut off.
            first, *steps = (json.loads(line) for line in lines if line.endswith("\n"))
        except (OSError, ValueError):
            return None
        return set(steps) if first == self.identity and self.content.is_dir() else None

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write the manifest, with what there is to say, and rename what was made."""
        place = self.content
        names = sorted({*files_in(place)} - {MANIFEST, MANIFEST_SUM})
        sums = {name: file_sum(place / name) for name in names}
        manifest = {"format": FORMAT, "identity": self.identity, **about, "files": sums}
        write_manifest(place, manifest)
        place.rename(self.target)
        shutil.rmtree(self.folder, ignore_errors=True)


def _identity(target):
    """Of the work that made a folder."""
    try:
        return json.loads((target / MANIFEST).read_text())["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
