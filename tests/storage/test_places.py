# SPDX-License-Identifier: Apache-2.0
"""Folders replaced as a whole, whenever the process is killed; names of leaves on any disk."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plprune.storage import load_checkpoint, save_checkpoint, steps
from plprune.storage.places import hashed_name, leaf_folders
from plprune.storage.trees import file_sum, read_manifest, read_tree, write_tree

OLD, NEW = {"x": np.zeros(3)}, {"x": np.ones(3)}


class Killed(BaseException):
    """Stands for a process that is gone: whatever it still tries fails."""


def read(path):
    return float(read_tree(path, read_manifest(path), OLD)["x"][0])


def write(path, tree, *, overwrite=True):
    write_tree(path, tree, {}, overwrite=overwrite)


def killed_at(monkeypatch, moment, work):
    """Whether `work` was killed at one of its renames and removals of places."""
    calls = iter(range(1000))

    def dying(original):
        def call(*args, **kwargs):
            if next(calls) >= moment:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "rename"), (Path, "unlink"), (shutil, "rmtree")):
            patch.setattr(owner, name, dying(getattr(owner, name)))
        try:
            work()
        except Killed:
            return True
    return False


def linked(path):
    (path.parent / "far").mkdir()
    path.symlink_to(path.parent / "far" / "away")


@pytest.mark.parametrize("is_link", [False, True], ids=["folder", "link"])
def test_killed_while_replacing_the_old_or_the_new_is_read(tmp_path, monkeypatch, is_link):
    path, seen, moment = tmp_path / "model", [], 0
    if is_link:
        linked(path)
    write(path, OLD)
    while killed_at(monkeypatch, moment, lambda: write(path, NEW)):
        seen.append(read(path))
        moment += 1
        with pytest.raises(ValueError, match="exists"):  # What is left aside is not lost either.
            write(path, NEW, overwrite=False)
        write(path, OLD)  # Nothing that was left behind is in the way of the next.
        assert read(path) == 0.0
    assert read(path) == 1.0
    assert seen == sorted(seen)
    assert seen[0] == 0.0
    assert seen[-1] == 1.0
    assert path.is_symlink() == is_link
    write(path, NEW)
    hidden = [p.name for p in path.resolve().parent.iterdir() if p.name.endswith(".old")]
    assert hidden == []


def test_a_file_at_the_path_is_replaced_by_overwriting_alone(tmp_path):
    path = tmp_path / "model"
    path.write_text("mine")
    with pytest.raises(ValueError, match="exists"):
        write(path, NEW, overwrite=False)
    assert path.read_text() == "mine"
    for _ in range(2):
        write(path, NEW)
        assert read(path) == 1.0
    os.mkfifo(tmp_path / "pipe")
    write(tmp_path / "pipe", NEW)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_link_that_leads_nowhere_or_in_a_circle(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    write(tmp_path / "a", NEW, overwrite=False)
    assert read(tmp_path / "b") == 1.0
    (tmp_path / "c").symlink_to(tmp_path / "c")
    write(tmp_path / "c", NEW)
    assert read(tmp_path / "c") == 1.0


def test_a_long_name_of_the_folder_itself(tmp_path):
    path = tmp_path / ("x" * 250)
    write(path, OLD)
    write(path, NEW)
    assert read(path) == 1.0


def test_a_checkpoint_of_the_same_step_is_replaced_or_still_there(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, OLD)
    moment = 0
    while killed_at(monkeypatch, moment, lambda: save_checkpoint(tmp_path, 1, NEW)):
        moment += 1
        assert steps(tmp_path) == [1]
        assert load_checkpoint(tmp_path, OLD).step == 1
    save_checkpoint(tmp_path, 2, NEW)
    assert load_checkpoint(tmp_path, OLD, step=1).tree["x"][0] == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_0000000001", "step_0000000002"]


ODD = [
    "", ".", "..", "a/b", "/etc", "nul\0", "\ud800", "ü" * 60, "x" * 300, "CON", "a%2Fb", "=", "W",
    "w", "_METADATA", "_metadata", "checkpoint", "commit_success.txt", "new\nline", "é",
]  # fmt: skip


@settings(deadline=None, max_examples=300)
@example(ODD)
@given(st.lists(st.text(max_size=300) | st.sampled_from(ODD), unique=True))
def test_every_leaf_has_a_safe_name_of_its_own(names):
    folders = leaf_folders(names)
    assert list(folders) == list(names)
    assert len({folder.lower() for folder in folders.values()}) == len(names)
    for folder in folders.values():
        assert folder.isascii()
        assert 0 < len(folder) <= 200
        assert not set(folder) & set("/\0\\:*?\n ")
        assert folder.strip(".")


def test_leaves_of_any_name_are_read_back(tmp_path):
    tree = {name: np.full(3, i) for i, name in enumerate(ODD)}
    write(tmp_path / "model", tree)
    manifest = read_manifest(tmp_path / "model")
    found = read_tree(tmp_path / "model", manifest, tree)
    assert {name: int(leaf[0]) for name, leaf in found.items()} == {
        name: i for i, name in enumerate(ODD)
    }
    long = next(name for name in manifest["hashed"] if name.startswith("x"))
    path = tmp_path / "model" / "arrays" / hashed_name(long) / "0"
    path.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="leaf xxx"):
        read_manifest(tmp_path / "model")


def test_a_folder_of_an_older_version_is_read(tmp_path):
    write(tmp_path / "model", NEW)
    path = tmp_path / "model" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["hashed"], manifest["bytes"]
    path.write_text(json.dumps(manifest))
    (path.parent / "manifest.sha256").write_text(f"{file_sum(path)}  manifest.json\n")
    assert read(tmp_path / "model") == 1.0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
@pytest.mark.parametrize("file", ["manifest.json", "manifest.sha256", "arrays/x/0"])
def test_what_is_no_file_is_refused_by_name(tmp_path, file, make):
    write(tmp_path / "model", NEW)
    path = tmp_path / "model" / file
    path.unlink()
    make(path)
    with pytest.raises(ValueError, match=r"is damaged: (it has no readable manifest|leaf x)"):
        read(tmp_path / "model")


def test_a_file_that_has_grown_without_end_is_not_summed(tmp_path):
    write(tmp_path / "model", NEW)
    with (tmp_path / "model" / "arrays" / "x" / "0").open("ab") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="leaf x"):
        read(tmp_path / "model")
