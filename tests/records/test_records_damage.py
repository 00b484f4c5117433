# SPDX-License-Identifier: Apache-2.0
"""No bit of a record changes unseen; older records, without a checksum, are read as before."""

import json
import os
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from plprune.records import (
    CURVES,
    RECORD,
    read_record,
    same_record,
    summarise,
    write_record,
)

NOW = {
    "experiment": "toy", "preset": "quick", "config": {"rate": 1e-05, "sizes": [0], "name": "ü e"},
    "command": "python -m experiments toy", "versions": {"jax": "0.10"}, "commit": None,
    "device": "cpu", "seeds": [0, 1], "numerics": {"jax_enable_x64": "True"},
    "results": summarise({"gd/dense": {"loss": [0.1 + 0.2, 1e-300], "none": [None, 2]}}),
}  # fmt: skip
ARRAYS = {"gd/dense/loss": np.arange(6.0).reshape(2, 3)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("record")
    write_record(place, NOW, ARRAYS)
    return place, (place / RECORD).read_bytes()


def test_what_is_read_is_what_was_written(folder):
    record, arrays = read_record(folder[0])
    assert record == NOW
    assert same_record((record, arrays), (NOW, ARRAYS))
    stored = json.loads(folder[1])
    assert list(stored)[-2:] == ["format", "checksum"]
    assert {key: stored[key] for key in NOW} == NOW


def test_a_flipped_bit_of_every_other_byte_is_found(folder):
    place, whole = folder
    for at in range(0, len(whole), 2):
        check_refused(place, whole, at, at % 7)


def test_every_flipped_bit_of_the_checksum_is_found(folder):
    place, whole = folder
    for at in range(whole.index(b'"format"'), len(whole)):
        for bit in (1, 5):
            check_refused(place, whole, at, bit)


def test_a_name_that_becomes_another_is_found(tmp_path):
    methods = {f"m{i}": {"loss": [1.0, 2.0]} for i in (1, 3)}  # They differ in one bit.
    write_record(tmp_path, NOW | {"results": summarise(methods)}, {})
    whole = (tmp_path / RECORD).read_bytes()
    check_refused(tmp_path, whole, whole.index(b"m3") + 1, 1)


def check_refused(place, whole, at, bit):
    damaged = bytearray(whole)
    damaged[at] ^= 1 << bit
    (place / RECORD).write_bytes(damaged)
    with pytest.raises(ValueError, match=r"record\.json"):
        read_record(place)
    (place / RECORD).write_bytes(whole)


@settings(deadline=None, max_examples=100)
@example((0, 1))
@given(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 7)))
def test_any_flipped_bit_is_found(folder, where):
    place, whole = folder
    check_refused(place, whole, int(where[0] * len(whole)), where[1])


def test_an_older_record_has_no_checksum(tmp_path):
    write_record(tmp_path, NOW, ARRAYS)
    (tmp_path / RECORD).write_text(json.dumps(NOW, indent=1))
    assert read_record(tmp_path)[0] == NOW


def test_a_record_that_was_read_can_be_written_again(tmp_path):
    stored = {"checksum": "?", **NOW, "format": 1}  # As if read by other means.
    write_record(tmp_path, stored, ARRAYS)
    assert read_record(tmp_path)[0] == NOW


@pytest.mark.parametrize("name", [RECORD, CURVES])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_refused_by_name(tmp_path, name, make):
    write_record(tmp_path, NOW, ARRAYS)
    (tmp_path / name).unlink()
    make(tmp_path / name)
    with pytest.raises(ValueError, match=name):
        read_record(tmp_path)


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    write_record(tmp_path, NOW, ARRAYS)
    with zipfile.ZipFile(tmp_path / CURVES, "a") as archive:
        archive.writestr("m/x.npy", b"")
        archive.filelist[-1].file_size = 2**34
    with pytest.raises(ValueError, match="at most 8,589,934,592 bytes"):
        read_record(tmp_path)
