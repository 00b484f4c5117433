# SPDX-License-Identifier: Apache-2.0
"""Where things lie on disk: folders replaced as a whole, and names that every file system takes."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

LONGEST = 200  # Bytes of a name; file systems take 255, and orbax and we put something to it.
ORBAX = {"_metadata", "_checkpoint_metadata", "_sharding", "checkpoint", "commit_success.txt"}


def found(path: Path) -> Path:
    """The folder at `path`, or where a save that was killed while replacing it has left it."""
    path = _followed(path)
    return _aside(path) if _is_left_aside(path) else path


def restored(path: Path) -> Path:
    """Where `path` leads; what a killed save has left aside is there again."""
    path = _followed(path)
    if _is_left_aside(path):
        _aside(path).rename(path)
    return path


def put(temporary: Path, path: Path) -> None:
    """Rename a finished folder to `path`; whatever was there goes only after that.

    Killed at any moment, this leaves the old or the new folder where `found` finds it.
    """
    old = _aside(path)
    if os.path.lexists(path):
        _remove(old)  # Of a save that was killed after it was done.
        path.rename(old)
    temporary.rename(path)
    if os.path.lexists(old):
        old.rename(temporary)  # Under a name that nobody reads: it is not removed in one step.
        _remove(temporary)


def beside(path: Path, suffix: str) -> Path:
    """The hidden name of something that is to become, or was, `path`."""
    name = path.name
    if len(os.fsencode(name)) > LONGEST:
        name = _digest(name)
    return path.with_name(f".{name}.{suffix}")


def leaf_folders(names: Iterable[str]) -> dict[str, str]:
    """A file name for every leaf, distinct even where upper and lower case are one.

    A plain name is quoted as in a URL. One that is long, orbax's own, or differs from another by
    case alone, becomes ``=`` and a hash.
    """
    quoted = {name: quoted_name(name) for name in names}
    times = Counter(folder.lower() for folder in quoted.values())
    return {
        name: folder
        if times[folder.lower()] == 1 and len(folder) <= LONGEST and folder.lower() not in ORBAX
        else hashed_name(name)
        for name, folder in quoted.items()
    }


def quoted_name(name: str) -> str:
    """A leaf's name in letters, digits, ``._~-`` and ``%``."""
    if not name.strip("."):  # A tree that is one array has no name; dots lead out of the folder.
        return name.replace(".", "%2E") or "%"
    return quote(name, safe="", errors="surrogatepass")


def hashed_name(name: str) -> str:
    """A short name for a leaf; no quoted name has an equals sign."""
    return f"={_digest(name)}"


def _digest(name):
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:40]


def _followed(path):
    """A link stays, and what it points to is replaced."""
    return Path(os.path.realpath(path))


def _aside(path):
    return beside(path, "old")


def _is_left_aside(path):
    return not os.path.lexists(path) and _aside(path).is_dir()


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
