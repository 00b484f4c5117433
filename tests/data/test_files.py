# SPDX-License-Identifier: Apache-2.0
"""Whatever lies at a path: regular files of a bounded size are read, nothing else is waited for."""

import os
import socket
from pathlib import Path

import pytest

from plprune.data.files import content, opened, text


def pipe(path):
    os.mkfifo(path)


def listener(path):
    with socket.socket(socket.AF_UNIX) as found:
        found.bind(str(path))


def endless(path):
    path.symlink_to("/dev/zero")


ODD = [pipe, listener, endless, Path.mkdir]


@pytest.mark.parametrize("make", ODD)
def test_what_is_no_regular_file_is_refused_at_once(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)  # A socket's name must be short.
    make(Path("odd"))
    with pytest.raises((ValueError, OSError)):
        content("odd")


def test_files_are_read_whole_and_links_followed(tmp_path):
    (tmp_path / "a").write_text("é\r\n", newline="")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert content(tmp_path / "b") == b"\xc3\xa9\r\n"
    assert text(tmp_path / "b") == "é\r\n"
    with pytest.raises(FileNotFoundError):
        content(tmp_path / "c")


def test_larger_files_are_not_begun(tmp_path):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(2**40)  # No disk is needed for it.
    with pytest.raises(ValueError, match="at most 67,108,864 bytes, got 1,099,511,627,776"):
        text(tmp_path / "a")
    with pytest.raises(ValueError, match="at most 3 bytes"):
        opened(tmp_path / "a", 3)
    assert opened(tmp_path / "a", 2**40).close() is None
