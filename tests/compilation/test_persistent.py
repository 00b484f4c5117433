# SPDX-License-Identifier: Apache-2.0
"""Programs on disk: found again, bounded, and never wrong, whatever has become of the files."""

import json
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plprune.compilation import (
    disable_compilation_cache,
    enable_compilation_cache,
    persistent,
)

HITS = []
jax.monitoring.register_event_listener(
    lambda name, **_: HITS.append(name) if name == "/jax/compilation_cache/cache_hits" else None
)
SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
    "jax_enable_compilation_cache",
)
POINT = np.arange(3.0)


def settings():
    return {name: getattr(jax.config, name) for name in SETTINGS}


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    """No folder of the user's, every program kept, and all as before at the end."""
    before = settings()
    for name, value in zip(SETTINGS, (None, -1, 1.0, 0, True), strict=True):
        jax.config.update(name, value)
    monkeypatch.setattr(persistent, "_SECONDS", 0.0)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "home" / name))
    yield
    disable_compilation_cache()
    for name, value in before.items():
        jax.config.update(name, value)
    persistent._restart()


def enabled(*args, **kwargs):
    folder = enable_compilation_cache(*args, **kwargs)
    assert folder is not None
    return folder


def compiled(factor=2.0):
    """The value of a program that this process does not remember."""
    jax.clear_caches()
    return np.asarray(jax.jit(lambda x: jnp.sin(x) * factor + x @ x)(POINT))


def expected(factor=2.0):
    return np.sin(POINT) * factor + POINT @ POINT


@contextmanager
def hits(least, most=10**6):
    before = len(HITS)
    yield
    assert least <= len(HITS) - before <= most


def entries(folder):
    return sorted(folder.glob("*-cache"))


def test_what_was_compiled_is_found_again(tmp_path):
    folder = enabled(tmp_path / "programs")
    assert folder == tmp_path / "programs"
    with hits(0, 0):
        first = compiled()
    assert entries(folder)
    with hits(1):
        np.testing.assert_array_equal(compiled(), first)
    np.testing.assert_allclose(first, expected())


def test_by_default_it_is_the_users_cache_folder(tmp_path):
    folder = enabled()
    assert folder == tmp_path / "home" / "plprune" / "programs"
    compiled()
    assert entries(folder)
    assert folder.stat().st_mode & 0o077 == 0


def test_what_compiles_at_once_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(persistent, "_SECONDS", 1000.0)
    folder = enabled(tmp_path)
    compiled()
    assert not entries(folder)


def test_a_folder_of_the_users_stays_as_it_is(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    before = settings()
    assert enable_compilation_cache(tmp_path / "mine", max_bytes=10) == tmp_path / "theirs"
    assert settings() == before
    assert not (tmp_path / "mine").exists()
    disable_compilation_cache()
    assert settings() == before


def test_a_threshold_of_the_users_stays(tmp_path):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 7.0)
    enable_compilation_cache(tmp_path)
    assert settings()["jax_persistent_cache_min_compile_time_secs"] == 7.0


def test_switched_off_in_jax_it_stays_off(tmp_path):
    jax.config.update("jax_enable_compilation_cache", False)
    assert enable_compilation_cache(tmp_path / "programs") is None
    assert not (tmp_path / "programs").exists()


def test_disabling_restores_what_was(tmp_path):
    before = settings()
    enable_compilation_cache(tmp_path / "one")
    folder = enabled(tmp_path / "two", max_bytes=10**6)
    assert settings()["jax_compilation_cache_max_size"] == 10**6
    disable_compilation_cache()
    assert settings() == before
    compiled()
    assert not entries(folder)
    disable_compilation_cache()


@pytest.mark.parametrize("wrong", [0, -1, True])
def test_a_bound_is_a_positive_whole_number(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"max_bytes must be a positive whole number, got"):
        enable_compilation_cache(tmp_path, max_bytes=wrong)


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    before = settings()
    with pytest.raises(ValueError, match=r"folder must be one to write into, got .*file"):
        enable_compilation_cache(tmp_path / "file")
    assert settings() == before


def test_a_home_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "home").write_text("")
    before = settings()
    with pytest.warns(UserWarning, match="Programs are not kept: .*home"):
        assert enable_compilation_cache() is None
    assert settings() == before
    np.testing.assert_allclose(compiled(), expected())


def test_a_folder_without_locks_is_a_note(monkeypatch):
    def no_lock(*_, **__):
        raise NotImplementedError("no locks here")

    monkeypatch.setattr("filelock.FileLock", no_lock)
    with pytest.warns(UserWarning, match="no locks here"):
        assert enable_compilation_cache() is None


def test_entries_stay_within_the_bound(tmp_path):
    folder = enabled(tmp_path)
    compiled(1.0)
    size = sum(entry.stat().st_size for entry in entries(folder))
    enable_compilation_cache(tmp_path, max_bytes=2 * size)
    for factor in (2.0, 3.0, 4.0, 5.0):
        compiled(factor)
        assert sum(entry.stat().st_size for entry in entries(folder)) <= 2 * size
    with hits(1):
        np.testing.assert_allclose(compiled(5.0), expected(5.0))


def test_of_too_many_entries_those_used_last_stay(tmp_path, monkeypatch):
    folder = enabled(tmp_path)
    compiled(1.0)
    once = set(entries(folder))
    compiled(2.0)
    again = set(entries(folder)) - once
    monkeypatch.setattr(persistent, "_ENTRIES", len(again))
    enable_compilation_cache(tmp_path)
    assert set(entries(folder)) == again
    assert len(list(folder.glob("*-atime"))) == len(again)


def flipped(entry):
    content = bytearray(entry.read_bytes())
    content[len(content) // 2] ^= 1
    entry.write_bytes(content)


DAMAGES = {
    "cut": lambda entry: entry.write_bytes(entry.read_bytes()[:-100]),
    "emptied": lambda entry: entry.write_bytes(b""),
    "flipped": flipped,
    "another": lambda entry: entry.write_bytes(max(entries(entry.parent)).read_bytes()[::-1]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_entries_go_and_values_are_right(tmp_path, damage):
    folder = enabled(tmp_path)
    compiled()
    enable_compilation_cache(tmp_path)  # Notes the sums, as the end of the process does.
    for entry in entries(folder):
        damage(entry)
    enable_compilation_cache(tmp_path)
    assert not entries(folder)
    with hits(0, 0):
        np.testing.assert_allclose(compiled(), expected())
    with hits(1):
        np.testing.assert_allclose(compiled(), expected())


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_entries_damaged_meanwhile_are_compiled_again(tmp_path, damage):
    folder = enabled(tmp_path)
    compiled()
    for entry in entries(folder):
        damage(entry)
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache"):
        np.testing.assert_allclose(compiled(), expected())


def test_an_entry_whose_writer_was_killed_goes(tmp_path):
    folder = enabled(tmp_path)
    compiled()
    half, *_ = entries(folder)
    half.with_name(half.name.replace("-cache", "-atime")).unlink()
    half.write_bytes(half.read_bytes()[:50])
    enable_compilation_cache(tmp_path)
    assert half not in entries(folder)
    with warnings.catch_warnings(action="error"):
        np.testing.assert_allclose(compiled(), expected())


@pytest.mark.parametrize("sums", ["", "[]", "{", '{"a-cache": 1}', "\x00"])
def test_damaged_sums_are_written_again(tmp_path, sums):
    folder = enabled(tmp_path)
    compiled()
    (folder / "checksums.json").write_text(sums)
    enable_compilation_cache(tmp_path)
    assert set(json.loads((folder / "checksums.json").read_text())) == {
        entry.name for entry in entries(folder)
    }
    with hits(1):
        compiled()


def test_a_folder_that_goes_costs_compilation_and_one_note(tmp_path):
    folder = enabled(tmp_path / "programs")
    shutil.rmtree(folder)
    folder.write_text("")
    with pytest.warns(UserWarning, match="persistent compilation cache"):
        np.testing.assert_allclose(compiled(), expected())


SCRIPT = """
import sys
import jax
import numpy as np
from plprune import enable_compilation_cache
from plprune.compilation import persistent

persistent._SECONDS = 0.0
jax.config.update("jax_compilation_cache_dir", None)
enable_compilation_cache(sys.argv[1], max_bytes=40_000)
for _ in range(3):
    for factor in range(4):
        jax.clear_caches()
        found = jax.jit(lambda x: jax.numpy.sin(x) * factor + x @ x)(np.arange(3.0))
        np.testing.assert_allclose(found, np.sin(np.arange(3.0)) * factor + 5.0, rtol=1e-6)
"""


def test_processes_share_a_folder(tmp_path):
    command = [sys.executable, "-W", "error", "-c", SCRIPT, str(tmp_path)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert not said
    names = {entry.name for entry in entries(tmp_path)}
    noted = json.loads((Path(tmp_path) / "checksums.json").read_text())
    assert names <= set(noted)  # Noted at their end, all that stayed.
    enable_compilation_cache(tmp_path)
    assert names == {entry.name for entry in entries(tmp_path)}
