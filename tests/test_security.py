# SPDX-License-Identifier: Apache-2.0
"""Nothing is unpickled, nothing is fetched, no name from a file leads out of its folder."""

import ast
import json
import os
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest

import plprune
from plprune.data import load
from plprune.records import CURVES, read_arrays, read_record
from plprune.storage import load_checkpoint, save_checkpoint

ROOT = Path(plprune.__file__).parents[1]
FILES = sorted(
    path
    for part in ("plprune", "experiments", "benchmarks")
    for path in (ROOT / part).rglob("*.py")
)
UNPICKLES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "torch"}
FETCHES = {
    "aiohttp", "ftplib", "http", "httpx", "requests", "smtplib", "socket", "urllib", "urllib3",
}  # fmt: skip
HARMLESS = {"urllib.parse"}
# Peers are measured in environments of their own, by programs of their own.
PEERS = ROOT / "benchmarks" / "contestants"


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_unpickles_fetches_or_evaluates(path):
    tree = ast.parse(path.read_text())
    found = {name for name in imported(tree) if name not in HARMLESS}
    roots = {name.partition(".")[0] for name in found}
    assert not roots & FETCHES
    assert not roots & (UNPICKLES - ({"torch"} if PEERS in path.parents else set()))
    for name, call in calls(tree):
        assert name not in ("eval", "exec", "yaml.load", "os.system")
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if name in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", "False") == "False"
        assert keywords.get("shell", "False") == "False"
        # TFDS alone may download, and only where somebody says `prepare`.
        if name.endswith("download_and_prepare"):
            assert path.relative_to(ROOT).as_posix() == "plprune/data/prepared.py"


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        pytest.fail("something reached for the network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)


def test_data_and_checkpoints_need_no_network(offline, tmp_path):
    assert offline is None
    assert len(load("digits", split="train[:3]").labels) == 3
    save_checkpoint(tmp_path, 1, {"x": np.ones(3)})
    assert load_checkpoint(tmp_path, {"x": np.ones(3)}).tree["x"].tolist() == [1, 1, 1]


def test_a_data_set_on_disk_needs_no_network(offline, tmp_path):
    assert offline is None
    try:
        load("fashion_mnist", split="test[:2]", data_dir=tmp_path)
    except FileNotFoundError as error:  # And is not fetched where it is missing.
        assert "prepare fashion_mnist" in str(error)  # noqa: PT017


@pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR names no prepared data sets"
)
def test_a_prepared_data_set_needs_no_network(offline, tmp_path):
    assert offline is None
    found = load("fashion_mnist", split="test[:3]", cache_dir=tmp_path)  # TFDS reads it itself.
    assert len(found.images) == len(found.labels) == 3


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("unpickled"),))


def test_objects_in_archives_are_refused_and_never_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "objects.npz", allow_pickle=True, **{"m/x": np.array([[Evil()]], object)})
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(tmp_path / "objects.npz")
    np.save(tmp_path / "object.npy", np.array([Evil()], object), allow_pickle=True)
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(tmp_path / "object.npy")
    assert not (tmp_path / "unpickled").exists()


def test_members_of_an_archive_are_names_and_not_paths(tmp_path):
    folder, outside = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    np.savez(folder / "inner.npz", x=np.ones((1, 2)))
    with zipfile.ZipFile(folder / "inner.npz") as inner:
        content = inner.read("x.npy")
    with zipfile.ZipFile(folder / CURVES, "w") as archive:
        for name in ("../../out/x.npy", f"{outside}/x.npy"):
            archive.writestr(name, content)
    assert set(read_arrays(folder / CURVES)) == {"../../out/x", f"{outside}/x"}
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["in", "inner.npz", CURVES]
    assert not outside.exists()


def test_an_archive_that_claims_a_giant_array_is_refused(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }" % 10**16
    padded = header.ljust(118) + b"\n"
    with zipfile.ZipFile(tmp_path / CURVES, "w") as archive:
        archive.writestr(
            "m/x.npy", b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded
        )
    with pytest.raises(ValueError, match="damaged"):
        read_arrays(tmp_path / CURVES)


def test_a_checkpoint_that_claims_a_giant_array_is_refused(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": np.ones(3)})
    (path,) = tmp_path.glob("step_*/arrays/x/.zarray")
    shape = json.loads(path.read_text()) | {"shape": [10**13], "chunks": [10**13]}
    path.write_text(json.dumps(shape))
    resum(tmp_path / "step_0000000001")
    with pytest.raises(ValueError, match=r"leaf x is stored as \[10000000000000\]"):
        load_checkpoint(tmp_path, {"x": np.ones(3)})


def resum(folder):
    """Sums that match, from whoever can compute SHA-256."""
    from plprune.storage.trees import file_sum, files_in

    path = folder / "manifest.json"
    files = set(files_in(folder)) - {"manifest.json", "manifest.sha256"}
    sums = {file: file_sum(folder / file) for file in files}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": sums}))
    (folder / "manifest.sha256").write_text(f"{file_sum(path)}  manifest.json\n")


def test_a_record_in_a_folder_that_links_away_is_only_read(tmp_path):
    (tmp_path / "record.json").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match=r"record\.json is damaged"):
        read_record(tmp_path)
