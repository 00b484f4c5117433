# SPDX-License-Identifier: Apache-2.0
"""Data sets by name: the embedded digits, and whatever TFDS has prepared."""

import re
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from plprune.data.arrays import Dataset, Text, check
from plprune.data.cache import cached
from plprune.data.prepared import (
    builder_on_disk,
    check_count,
    fingerprint,
    reading,
    records,
)
from plprune.extras import optional

TITLES = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "digits": "digits",
    "fashion_mnist": "Fashion-MNIST",
    "mnist": "MNIST",
    "tiny_shakespeare": "Tiny Shakespeare",
}
NUM_TEST_DIGITS = 360


class _Source(NamedTuple):
    """A data set before a split is chosen."""

    sizes: Mapping[str, int]
    read: Callable[[str], tuple[np.ndarray, np.ndarray]]  # Split -> raw images, labels.
    num_classes: int
    white: int  # The largest value of a raw pixel.
    title: str
    notes: str


def load(
    name: str,
    *,
    split: str,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
) -> Dataset:
    """Images in [0, 1] as float32 [n, h, w, channels], and their labels.

    Args:
      name: "digits", the 1,797 images of handwritten digits that come with scikit-learn (8 x 8;
        a fixed random 1,437 / 360 division into "train" and "test"), or any image-classification
        set that TFDS has prepared on disk. Nothing is ever downloaded; see `prepare`.
      split: Such as "train", "train[:10000]" or "test[50%:]".
      data_dir: Folder of prepared sets; by default TFDS_DATA_DIR, else ~/tensorflow_datasets.
      cache_dir: Where decoded arrays are kept; by default the user's cache folder.

    Returns:
      A checked data set. A TFDS split is decoded once and then read from the cache.

    Raises:
      FileNotFoundError: If the set is not there; says where it was sought and what fetches it.
      ValueError: If there is no such set or split, or it is not for image classification.
      MissingExtraError: If the extra "data" is not installed.
    """
    source = _digits() if name == "digits" else _images(name, data_dir, cache_dir)
    base, part = _parse(split, source.sizes, name)
    images, labels = source.read(base)
    dataset = Dataset(
        images=images[part].astype(np.float32) / np.float32(source.white),
        labels=labels[part].astype(np.int32),
        num_classes=source.num_classes,
        name=name,
        title=source.title,
        notes=source.notes,
    )
    check(dataset)
    return dataset


def load_text(name: str, *, split: str, data_dir: str | Path | None = None) -> Text:
    """The bytes of a TFDS text set with one record per split, such as "tiny_shakespeare".

    Slices count bytes: "train[:10000]" is the first 10,000 of them.

    Raises:
      FileNotFoundError: If the set is not there; says where it was sought and what fetches it.
      ValueError: If there is no such set or split, or the split does not hold a single text.
      MissingExtraError: If the extra "data" is not installed.
    """
    builder = builder_on_disk(name, data_dir)
    sizes = {key: info.num_examples for key, info in builder.info.splits.items()}
    base = split.split("[")[0]
    if "text" not in builder.info.features or set(sizes.values()) != {1}:
        raise ValueError(f"{name} must hold one text per split.")
    _parse(base, sizes, name)
    check_count(builder, base)
    (texts,) = records(builder, base, "text")
    tokens = np.frombuffer(texts[0], np.uint8)
    _, part = _parse(split, {base: len(tokens)}, name)
    return Text(tokens[part], 256, name, _title(name, builder), _notes(builder))


def _digits():
    images, labels = _embedded_digits()
    # The embedded order is by writer; a fixed shuffle gives both parts every writer.
    order = np.random.default_rng(0).permutation(len(labels))
    parts = {"train": order[NUM_TEST_DIGITS:], "test": order[:NUM_TEST_DIGITS]}

    def read(split):
        return images[parts[split], ..., None], labels[parts[split]]

    sizes = {split: len(part) for split, part in parts.items()}
    return _Source(sizes, read, 10, 16, TITLES["digits"], "")


def _embedded_digits():
    """Images [n, 8, 8] and labels, as scikit-learn's `load_digits` reads them."""
    found = find_spec("sklearn")  # Importing it takes a second, its file a fiftieth.
    file = Path(found.origin or "").parent / "datasets/data/digits.csv.gz" if found else None
    if file is None or not file.is_file():
        bunch = optional("sklearn.datasets").load_digits()
        return bunch.images, bunch.target
    table = np.loadtxt(file, delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(int)


def _images(name, data_dir, cache_dir):
    builder = builder_on_disk(name, data_dir)
    with reading(builder.data_dir):
        features = builder.info.features
        keys: tuple[Any, ...] = builder.info.supervised_keys or ()
        fits = len(keys) == 2 and _is_image(features[keys[0]]) and _is_label(features[keys[1]])
    if not fits:
        raise ValueError(f"{name} must be an image-classification set of TFDS.")
    sizes = {split: info.num_examples for split, info in builder.info.splits.items()}
    kind, shape = np.dtype(features[keys[0]].np_dtype), features[keys[0]].shape

    def read(split):
        version = builder.info.full_name.replace("/", "-")
        file = f"{version}-{split}-{fingerprint(Path(builder.data_dir))}"
        arrays = cached(file, lambda: _decode(builder, split, keys), folder=cache_dir)
        _check_images(name, arrays["images"], kind, shape)
        return arrays["images"], arrays["labels"]

    white, num_classes = np.iinfo(kind).max, features[keys[1]].num_classes
    return _Source(sizes, read, num_classes, white, _title(name, builder), _notes(builder))


def _check_images(name, images, kind, shape):
    """They are what the description says, by which they are scaled."""
    pairs = zip(images.shape[1:], shape, strict=False)
    if images.dtype != kind or any(size not in (None, found) for found, size in pairs):
        raise ValueError(
            f"images of {name} must be {kind}{list(shape)}, "
            f"got {images.dtype}{list(images.shape[1:])}."
        )


def _is_image(feature):
    whole = np.issubdtype(feature.np_dtype, np.integer)
    return whole and feature.shape is not None and len(feature.shape) == 3


def _is_label(feature):
    return bool(getattr(feature, "num_classes", None))


def _decode(builder, split, keys):
    check_count(builder, split)
    images, labels = records(builder, split, *keys)
    return {"images": images, "labels": labels}


def _title(name, builder):
    title, metadata = TITLES.get(name, name), builder.info.metadata or {}
    if metadata.get("lossless", True):
        return title
    jpeg = str(metadata.get("image_encoding", "")).startswith("jpeg")
    return f"{title} ({'JPEG re-encoding' if jpeg else 'not lossless'})"


def _notes(builder):
    metadata = builder.info.metadata or {}
    return "" if metadata.get("lossless", True) else str(metadata.get("note", "not lossless"))


def _parse(split, sizes, name):
    """The base split and the slice that a string such as "train[:10%]" names."""
    match = re.fullmatch(r"(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?", split)
    if not match or match[1] not in sizes:
        known, first = ", ".join(sizes), next(iter(sizes))
        raise ValueError(
            f"split of {name} must be one of {known}, or a part such as {first}[:100]; "
            f"got {split!r}."
        )
    base, start, stop = match.groups()
    size = sizes[base]
    start, stop = _bound(start, size, 0, split), _bound(stop, size, size, split)
    if start >= stop:
        raise ValueError(f"split must hold an example, got {split!r}.")
    return base, slice(start, stop)


def _bound(text, size, default, split):
    if text is None:
        return default
    count = round(int(text[:-1]) * size / 100) if text.endswith("%") else int(text)
    if abs(count) > size:
        raise ValueError(f"split must stay within {size} examples, got {split!r}.")
    return count + size if count < 0 else count
