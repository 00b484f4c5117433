# SPDX-License-Identifier: Apache-2.0
"""Arrays kept on disk so that a data set is decoded once."""

import contextlib
import hashlib
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from plprune.data.files import content, text
from plprune.extras import optional

LARGEST_CACHED = 2**36
Arrays = dict[str, np.ndarray]


def cached(name: str, build: Callable[[], Arrays], *, folder: str | Path | None = None) -> Arrays:
    """The arrays that `build` returns, from `folder/name.npz` where that file is intact.

    The file is written beside a SHA-256 sum and renamed into place, so that readers never see
    half of it; one that does not match its sum is built again. A folder that cannot be written
    costs the time of building, nothing else. Nothing is unpickled.

    Args:
      name: File name without extension, unique to the content.
      build: Makes the arrays.
      folder: By default the user's cache folder, `~/.cache/plprune` on Linux.

    Raises:
      MissingExtraError: no `folder`, and the extra "data" is not installed.
    """
    folder = Path(folder or user_folder())
    arrays = _read(folder / f"{name}.npz")
    if arrays is None:
        arrays = build()
        # A cache is a convenience: a full or read-only disk must not stop the run.
        with contextlib.suppress(OSError):
            _write(folder / f"{name}.npz", arrays)
    return arrays


def user_folder() -> str:
    """The user's cache folder of plprune, which need not exist."""
    return optional("platformdirs").user_cache_dir("plprune")


def _read(path):
    try:
        found, checksum = content(path, LARGEST_CACHED), text(_checksum_path(path))
    except (OSError, ValueError):
        return None
    if checksum != _checksum_line(found, path):
        return None
    with np.load(io.BytesIO(found), allow_pickle=False) as archive:
        return dict(archive)


def _write(path, arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    whole = buffer.getvalue()
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, whole)
    _replace(_checksum_path(path), _checksum_line(whole, path).encode())


def _replace(path, whole):
    """Write `path` in one step, as far as readers can tell."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(whole)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _checksum_path(path):
    return path.with_suffix(".sha256")


def _checksum_line(whole, path):
    """A line that `sha256sum --check` reads."""
    return f"{hashlib.sha256(whole).hexdigest()}  {path.name}\n"
