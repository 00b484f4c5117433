# SPDX-License-Identifier: Apache-2.0
"""Data sets by name: the embedded digits everywhere, TFDS copies where there are some."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from plprune.data import check, load, load_text, prepare, sequences
from plprune.data.prepared import records, versions
from plprune.extras import MissingExtraError

prepared = pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR"), reason="TFDS_DATA_DIR names no prepared data sets"
)


def test_digits_are_the_embedded_images_divided_once():
    train, test = load("digits", split="train"), load("digits", split="test")
    assert (train.images.shape, test.images.shape) == ((1437, 8, 8, 1), (360, 8, 8, 1))
    images = np.concatenate([train.images, test.images]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    expected = load_digits().data / 16
    np.testing.assert_array_equal(np.sort(images, axis=0), np.sort(expected, axis=0))
    assert (images.min(), images.max(), images.dtype) == (0, 1, np.float32)
    assert set(test.labels.tolist()) == set(range(10))
    assert (train.num_classes, train.title, train.notes) == (10, "digits", "")


def test_digits_are_read_without_scikit_learn_and_by_it_where_the_file_is_not_there(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("plprune.data.loading.optional", pytest.fail)
        found = load("digits", split="train")
    monkeypatch.setattr("plprune.data.loading.find_spec", lambda _: None)
    by_it = load("digits", split="train")
    assert found.labels.dtype == by_it.labels.dtype
    np.testing.assert_array_equal(found.labels, by_it.labels)
    np.testing.assert_array_equal(found.images, by_it.images)


def test_digits_keep_images_and_labels_together():
    from sklearn.datasets import load_digits

    bunch, test = load_digits(), load("digits", split="test")
    label_of = {
        image.tobytes(): label for image, label in zip(bunch.data, bunch.target, strict=True)
    }
    rows = (test.images.reshape(360, -1) * 16).astype(np.float64)
    assert [label_of[row.tobytes()] for row in rows] == test.labels.tolist()


@pytest.mark.parametrize(
    ("split", "start", "stop"),
    [
        ("test[:100]", 0, 100),
        ("test[-10:]", 350, 360),
        ("test[25%:50%]", 90, 180),
        ("test[:]", 0, 360),
    ],
)
def test_splits_are_sliced_as_in_tfds(split, start, stop):
    whole = load("digits", split="test")
    part = load("digits", split=split)
    np.testing.assert_array_equal(part.images, whole.images[start:stop])
    np.testing.assert_array_equal(part.labels, whole.labels[start:stop])


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("validation", "one of train, test, or a part such as train.* got 'validation'"),
        ("train[:5", "got 'train"),
        ("train+test", "got 'train"),
        ("test[:361]", "within 360 examples, got 'test"),
        ("test[5:5]", "must hold an example, got 'test"),
    ],
)
def test_rejects_unknown_splits(split, message):
    with pytest.raises(ValueError, match=message):
        load("digits", split=split)


def test_missing_data_says_where_it_looked_and_what_fetches_it(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"python -m experiments prepare mnist") as error:
        load("mnist", split="train", data_dir=tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        load_text("tiny_shakespeare", split="train")


def test_unknown_name_is_answered_with_near_ones(tmp_path):
    with pytest.raises(ValueError, match="no data set 'fashion_mnits'; TFDS has fashion_mnist"):
        load("fashion_mnits", split="train", data_dir=tmp_path)


def test_preparing_without_tensorflow_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(MissingExtraError, match=r"tensorflow is not .*\[prepare\]"):
        prepare("mnist")


@pytest.mark.parametrize(("name", "message"), [("nosuch", "no data set"), ("digits", "ship with")])
def test_what_cannot_be_prepared_is_named_before_tensorflow(name, message):
    with pytest.raises(ValueError, match=message):
        prepare(name)


@prepared
def test_fashion_mnist_is_decoded_once_and_then_read(tmp_path, monkeypatch):
    first = load("fashion_mnist", split="test[:500]", cache_dir=tmp_path)
    monkeypatch.setattr("plprune.data.loading.records", None)
    again = load("fashion_mnist", split="test[:500]", cache_dir=tmp_path)
    np.testing.assert_array_equal(first.images, again.images)
    assert first.images.shape == (500, 28, 28, 1)
    assert (first.title, first.notes, first.num_classes) == ("Fashion-MNIST", "", 10)
    assert 0 <= first.images.min() < first.images.max() == 1
    check(first)


@prepared
def test_fashion_mnist_equals_the_records(tmp_path):
    import tensorflow_datasets as tfds

    loaded = load("fashion_mnist", split="test[7:9]", cache_dir=tmp_path)
    source = tfds.data_source("fashion_mnist", split="test[7:9]", download=False)
    for i in range(2):
        np.testing.assert_allclose(loaded.images[i] * 255, source[i]["image"], rtol=1e-6)
        assert loaded.labels[i] == source[i]["label"]


@prepared
def test_lossy_copy_says_so(tmp_path):
    folder = Path(os.environ["TFDS_DATA_DIR"]) / "fashion_mnist" / "3.0.1"
    copy = tmp_path / "data" / "fashion_mnist" / "3.0.1"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*train*"))
    lossy = {"lossless": False, "image_encoding": "jpeg-q75", "note": "re-encoded"}
    (copy / "metadata.json").write_text(json.dumps(lossy))
    options = {"data_dir": tmp_path / "data", "cache_dir": tmp_path}
    dataset = load("fashion_mnist", split="test[:2]", **options)
    assert dataset.title == "Fashion-MNIST (JPEG re-encoding)"
    assert dataset.notes == "re-encoded"


@prepared
def test_copy_in_another_format_is_refused_with_what_to_run(tmp_path):
    folder = Path(os.environ["TFDS_DATA_DIR"]) / "tiny_shakespeare" / "1.0.0"
    copy = tmp_path / "tiny_shakespeare" / "1.0.0"
    shutil.copytree(folder, copy)
    info = json.loads((copy / "dataset_info.json").read_text())
    (copy / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match=r"array_record format, got tfrecord; run: .* prepare"):
        load_text("tiny_shakespeare", split="train", data_dir=tmp_path)


def test_newest_prepared_version_is_chosen(tmp_path):
    for version in ("9.0.0", "10.0.0", "10.0.1.incomplete"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "dataset_info.json").write_text("{}")
    (tmp_path / "11.0.0").mkdir()  # Nothing was prepared in it.
    assert [path.name for path in versions(tmp_path)] == ["9.0.0", "10.0.0"]


def test_records_of_several_shapes_are_refused():
    class Source(list):
        def __getitems__(self, keys):
            return [self[key] for key in keys]

    source = Source({"image": np.zeros((size, size, 3))} for size in (2, 3, 3))
    info = SimpleNamespace(full_name="toy/1.0.0")
    builder = SimpleNamespace(info=info, as_data_source=lambda split: {"train": source}[split])
    with pytest.raises(ValueError, match=r"image of toy/1.0.0 must have one shape, got 2"):
        records(builder, "train", "image")


@prepared
def test_text_is_bytes_of_the_split():
    text = load_text("tiny_shakespeare", split="validation")
    assert (text.tokens.dtype, text.num_tokens, text.notes) == (np.uint8, 256, "")
    part = load_text("tiny_shakespeare", split="validation[:1000]")
    np.testing.assert_array_equal(part.tokens, text.tokens[:1000])
    assert part.tokens.tobytes().decode("ascii").count("\n") > 5
    assert sequences(part, 99).inputs.shape == (10, 99)
    with pytest.raises(ValueError, match="must be one of train, validation, test"):
        load_text("tiny_shakespeare", split="valid")


@prepared
def test_sets_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="must be an image-classification set"):
        load("tiny_shakespeare", split="train")
    with pytest.raises(ValueError, match="must hold one text per split"):
        load_text("fashion_mnist", split="test")
