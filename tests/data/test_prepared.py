# SPDX-License-Identifier: Apache-2.0
"""Prepared data sets whose files are damaged, of another version, or no files: one line each."""

import io
import json
import os

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plprune.data import load

FEATURES = "tensorflow_datasets.core.features"
INFO = {
    "fileFormat": "array_record", "name": "mnist", "version": "3.0.1",
    "supervisedKeys": {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}},
    "splits": [{
        "name": "train", "numBytes": "10", "shardLengths": ["2"],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }],
}  # fmt: skip
IMAGE = {"shape": {"dimensions": ["2", "3", "1"]}, "dtype": "uint8", "encodingFormat": "png"}
KINDS = {
    "pythonClassName": f"{FEATURES}.features_dict.FeaturesDict",
    "featuresDict": {"features": {
        "image": {"pythonClassName": f"{FEATURES}.image_feature.Image", "image": IMAGE},
        "label": {
            "pythonClassName": f"{FEATURES}.class_label_feature.ClassLabel",
            "classLabel": {"numClasses": "10"},
        },
    }},
}  # fmt: skip
RECORDS = "mnist-train.array_record-00000-of-00001"


def example(value):
    """An image and its label as a tf.train.Example, by the rules of protocol buffers."""
    from PIL import Image

    picture = io.BytesIO()
    Image.fromarray(np.full((2, 3), value, np.uint8)).save(picture, "png")

    def part(number, content):
        return bytes([8 * number + 2, *length(len(content))]) + content

    def length(size):
        return [size] if size < 128 else [size % 128 + 128, size // 128]

    image = part(1, b"image") + part(2, part(1, part(1, picture.getvalue())))
    label = part(1, b"label") + part(2, part(3, part(1, bytes([value]))))
    return part(1, part(1, image) + part(1, label))


@pytest.fixture
def version(tmp_path):
    folder = tmp_path / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps(INFO))
    (folder / "features.json").write_text(json.dumps(KINDS))
    (folder / "label.labels.txt").write_text("\n".join("0123456789"))
    writer = ArrayRecordWriter(str(folder / RECORDS), "group_size:1")
    for value in (1, 7):
        writer.write(example(value))
    writer.close()
    return folder


def read(version):
    return load("mnist", split="train", data_dir=version.parents[1], cache_dir=version / "cache")


def refused(version):
    with pytest.raises(ValueError, match=r"3\.0\.1 (is damaged|must be)") as caught:
        read(version)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_the_sound_set_is_read(version):
    found = read(version)
    assert found.labels.tolist() == [1, 7]
    np.testing.assert_allclose(found.images[:, 0, 0, 0] * 255, [1, 7], rtol=1e-6)


CHANGES = {
    "empty": lambda _: b"",
    "half": lambda whole: whole[: len(whole) // 2],
    "zeros": lambda whole: bytes(len(whole)),
    "list": lambda _: b"[]",
    "nothing": lambda _: b"{}",
    "bytes": lambda whole: b"\xff" + whole[1:],
    "deep": lambda _: b"[" * 10_000,
}


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_description_is_one_line(version, name, change):
    (version / name).write_bytes(CHANGES[change]((version / name).read_bytes()))
    refused(version)


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("dataset_info.json", "3.0.1", "3.1.0", "version 3.1.0"),
        ("dataset_info.json", '"shardLengths": ["2"]', '"shardLengths": ["1"]', "got 2"),
        ("dataset_info.json", '"shardLengths": ["2"]', '"shardLengths": ["3"]', "got 2"),
        ("dataset_info.json", '"shardLengths": ["2"]', '"shardLengths": ["-2"]', "numbers of"),
        ("dataset_info.json", "array_record", "arrow", "arrow"),
        ("dataset_info.json", '"featureKey": "image"', '"featureKey": "imagf"', "imagf"),
        ("dataset_info.json", "{SPLIT}", "{SPLIP}", "SPLIP"),
        ("features.json", "image_feature.Image", "image_feature.Imbge", "Imbge"),
        ("features.json", '"10"', '"30"', "30 classes, 10 names"),
        ("label.labels.txt", "7\n8\n9", "7", "10 classes, 8 names"),
    ],
)
def test_a_description_that_says_something_else_is_refused(version, name, old, new, told):
    text = (version / name).read_text()
    assert old in text
    (version / name).write_text(text.replace(old, new))
    assert told in refused(version)


def test_images_are_what_the_description_says(version):
    text = (version / "features.json").read_text()
    (version / "features.json").write_text(text.replace('["2", "3", "1"]', '["2", "4", "1"]'))
    with pytest.raises(ValueError, match=r"uint8\[2, 4, 1\], got uint8\[2, 3, 1\]"):
        read(version)


@pytest.mark.parametrize("change", ["empty", "half", "zeros"])
def test_damaged_records_are_one_line(version, change):
    whole = (version / RECORDS).read_bytes()
    (version / RECORDS).write_bytes(CHANGES[change](whole))
    refused(version)


@pytest.mark.parametrize("name", ["features.json", RECORDS])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_no_file_is_not_waited_for(version, name, make):
    (version / name).unlink()
    refused(version)
    make(version / name)
    refused(version)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["dataset_info.json", "features.json"]),
    at=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_gives_the_same_data_or_one_line(version, name, at, bit):
    whole = (version / name).read_bytes()
    damaged = bytearray(whole)
    damaged[int(at * len(whole))] ^= 1 << bit
    (version / name).write_bytes(damaged)
    try:
        found = read(version)
    except (ValueError, FileNotFoundError) as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017
    else:
        assert found.labels.tolist() == [1, 7]
        assert (found.num_classes, round(float(found.images.max() * 255))) == (10, 7)
    finally:
        (version / name).write_bytes(whole)
