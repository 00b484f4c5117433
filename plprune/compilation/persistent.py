# SPDX-License-Identifier: Apache-2.0
"""Compiled programs kept on disk, so that the next process finds them: jax's own cache, bounded.

jax writes and reads the entries, under a lock that processes share. What it leaves open is done
when the cache is enabled: half-written and damaged entries go, and so do the oldest of too many.
"""

import atexit
import hashlib
import json
import os
import stat
import tempfile
import warnings
from importlib import import_module
from pathlib import Path

import jax

from plprune.extras import optional

# What compiles faster is not kept. Of the 220 programs of a short experiment 55 take longer, and
# together 93 % of all compile seconds; keeping all would save a fifteenth more, at 4 x the files.
_SECONDS = 0.05
_ENTRIES = 512  # jax looks at every file before it writes one: 70 us each.
_WAIT = 10  # Seconds for another process to let go of the lock.
_ENTRY, _USED, _SUMS = "-cache", "-atime", "checksums.json"
_FOLDER = "jax_compilation_cache_dir"
_THRESHOLD = "jax_persistent_cache_min_compile_time_secs"
# jax's settings that are made here, and what they were; none while the folder is the user's.
_made: dict[str, object] = {}
_before: dict[str, object] = {}


def enable_compilation_cache(
    folder: str | os.PathLike[str] | None = None, *, max_bytes: int = 2**28
) -> Path | None:
    """The folder in which compiled programs are kept from now on, for later processes to find.

    One call, in front of a notebook or a script: `plprune.enable_compilation_cache()`. It turns on
    jax's persistent compilation cache for all programs of the process that take .05 s or more to
    compile. A folder that jax already has (`JAX_COMPILATION_CACHE_DIR`) stays as it is, with its
    bound and thresholds, and is returned. Programs are found by their content, the versions of jax
    and jaxlib, XLA's flags and the processor's features. Whoever can write into the folder can make
    this process run code: give one of your own.

    Args:
      folder: By default `plprune/programs` in the user's cache folder, `~/.cache` on Linux.
      max_bytes: What is used least goes when the entries come to more.

    Returns:
      The folder, or None where programs are not kept: if `JAX_ENABLE_COMPILATION_CACHE` is false,
      and, with a warning, if the default folder cannot be written.

    Raises:
      ValueError: `max_bytes` is not positive, the given `folder` cannot be written, or the extra
        "cache" is not installed.
    """
    if not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 1:
        raise ValueError(f"max_bytes must be a positive whole number, got {max_bytes!r}.")
    if not _setting("jax_enable_compilation_cache"):
        return None
    if not _is_ours():
        return Path(_setting(_FOLDER))
    place = _default_folder() if folder is None else Path(folder).expanduser().absolute()
    try:
        _prepare(place)
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if folder is not None:
            raise ValueError(f"folder must be one to write into, got {place}: {reason}.") from error
        warnings.warn(f"Programs are not kept: {place} cannot be used: {reason}.", stacklevel=2)
        return None
    _configure(place, max_bytes)
    return place


def disable_compilation_cache() -> None:
    """Keep no more programs on disk, and look for none; what lies there stays.

    Undoes `enable_compilation_cache`; a folder that jax got from elsewhere is left alone.
    """
    if _made and _is_ours():
        for name in _made:
            jax.config.update(name, _before[name])
        _restart()
    _made.clear()
    _before.clear()


def _setting(name):
    return getattr(jax.config, name)


def _is_ours():
    return _setting(_FOLDER) in (None, _made.get(_FOLDER))


def _default_folder():
    return Path(optional("platformdirs").user_cache_dir("plprune")) / "programs"


def _configure(folder, max_bytes):
    chosen = {
        _FOLDER: str(folder),
        "jax_compilation_cache_max_size": max_bytes,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if _setting(_THRESHOLD) == 1.0:  # As jax has it; another one is the user's and stays.
        chosen[_THRESHOLD] = _SECONDS
    for name, value in chosen.items():
        _before.setdefault(name, _setting(name))
        jax.config.update(name, value)
    _made.update(chosen)
    _restart()
    # A disk that fills up, an entry damaged meanwhile: jax compiles, and says so once, even where
    # warnings are errors.
    warnings.filterwarnings("once", message="Error (reading|writing) persistent compilation cache")
    atexit.unregister(_seal)
    atexit.register(_seal, folder)


def _restart():
    """Let jax look at its settings again: it does so once."""
    import_module("jax.experimental.compilation_cache.compilation_cache").reset_cache()


def _prepare(folder):
    """Make the folder, see that it can be written and locked, and mend what lies there."""
    folder.mkdir(mode=stat.S_IRWXU, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(2**16))
    with _lock(folder):
        _mend(folder)


def _lock(folder):
    """The lock of jax's own on the folder."""
    return optional("filelock").FileLock(folder / ".lockfile", timeout=_WAIT)


def _mend(folder):
    """Remove entries that are half written, damaged or too many; note the sums of the others."""
    known, sums = _known(folder), {}
    for entry in sorted(folder.glob(f"*{_ENTRY}"), key=_used, reverse=True):
        digest = _digest(entry)
        if _used(entry) and len(sums) < _ENTRIES and known.get(entry.name, digest) == digest:
            sums[entry.name] = digest
        else:
            _remove(entry)
    if sums != known:
        _write(folder, sums)


def _used(entry):
    """When an entry was last used, by what jax writes after it; 0 if that is missing."""
    try:
        return int.from_bytes(_beside(entry).read_bytes(), "little")
    except OSError:
        return 0


def _beside(entry):
    return entry.with_name(entry.name.removesuffix(_ENTRY) + _USED)


def _remove(entry):
    entry.unlink(missing_ok=True)
    _beside(entry).unlink(missing_ok=True)


def _digest(entry):
    with entry.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known(folder):
    try:
        known = json.loads((folder / _SUMS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(folder, sums):
    written = folder / f"{_SUMS}.new"  # One writer at a time holds the lock.
    written.write_text(json.dumps(sums), encoding="utf-8")
    written.replace(folder / _SUMS)


def _seal(folder):
    """Note the sums of what this process has written, at its end."""
    try:
        with _lock(folder):
            known = _known(folder)
            entries = {entry.name: entry for entry in folder.glob(f"*{_ENTRY}") if _used(entry)}
            _write(folder, {n: known.get(n) or _digest(entry) for n, entry in entries.items()})
    except (OSError, NotImplementedError):
        pass  # The next process notes them when it starts.
