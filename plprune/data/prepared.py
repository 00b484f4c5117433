# SPDX-License-Identifier: Apache-2.0
"""TFDS data sets that are already on disk: found, read, or refused with what would fetch them."""

import contextlib
import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from plprune.data.files import text
from plprune.extras import optional

CHUNK = 1000  # Records decoded at a time.


def prepare(name: str, data_dir: str | Path | None = None) -> None:
    """Download a TFDS data set and write it in the array_record format.

    Args:
      name: Name in TFDS, such as "fashion_mnist".
      data_dir: Where to; by default TFDS_DATA_DIR, else TFDS's own folder.

    Raises:
      ValueError: If TFDS has no data set of this name.
      MissingExtraError: If TensorFlow, which TFDS needs for this one step, is missing, or TFDS is.
    """
    if name == "digits":
        raise ValueError("digits need no preparing: they ship with scikit-learn.")
    _check_known(name)
    optional("tensorflow")
    builder = _tfds().builder(name, data_dir=folders(data_dir)[0], file_format="array_record")
    builder.download_and_prepare()


def folders(data_dir: str | Path | None) -> list[Path]:
    """The folders that are looked at: `data_dir` alone, else TFDS_DATA_DIR, else TFDS's default."""
    named = data_dir or os.environ.get("TFDS_DATA_DIR")
    return [Path(named or "~/tensorflow_datasets").expanduser()]


def builder_on_disk(name: str, data_dir: str | Path | None) -> Any:
    """TFDS's read-only builder for the newest prepared version of a data set.

    Never touches the network.

    Raises:
      FileNotFoundError: If there is none; names the folders and the command that fetches it.
      ValueError: If TFDS has no data set of this name, or the copy is damaged or not in
        array_record format; names its folder.
      MissingExtraError: If the extra "data" is not installed.
    """
    found = [path for folder in folders(data_dir) for path in versions(folder / name)]
    if not found:
        _check_known(name)
        looked = ", ".join(map(str, folders(data_dir)))
        raise FileNotFoundError(
            f"no prepared {name} in {looked}; set TFDS_DATA_DIR to a folder that has it, or run: "
            f"python -m experiments prepare {name}"
        )
    tfds, folder = _tfds(), found[-1]
    with reading(folder):
        _check_regular(folder)
        builder = tfds.builder_from_directory(folder)
        _check_info(folder, builder.info)
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise ValueError(
            f"{folder} must be in array_record format, got {_format(builder)}; "
            f"run: python -m experiments prepare {name}"
        )
    return builder


@contextlib.contextmanager
def reading(folder: str | Path) -> Iterator[None]:
    """One line for whatever TFDS and its libraries raise at damaged files or another format."""
    try:
        with quiet():
            yield
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{folder} is damaged, or not as this version of TFDS writes it: "
            f"{type(error).__name__}: {said}"
        ) from error


def _check_regular(folder):
    for path in folder.iterdir():
        if not path.is_file() and not path.is_dir():  # A pipe would wait, a device never end.
            raise ValueError(f"{path.name} must be a regular file.")
    for name in ("dataset_info.json", "features.json"):
        if not isinstance(json.loads(text(folder / name)), dict):
            raise ValueError(f"{name} must be a JSON object.")


def _check_info(folder, info):
    if str(info.version) != folder.name:
        raise ValueError(f"dataset_info.json has version {info.version}.")
    if not info.splits or min(split.num_examples for split in info.splits.values()) < 0:
        raise ValueError("dataset_info.json has no splits with numbers of records.")
    for name, feature in getattr(info.features, "items", dict)():
        classes = getattr(feature, "num_classes", None)
        if classes and len(feature.names) != classes:
            raise ValueError(f"{name} has {classes} classes, {len(feature.names)} names.")


def _format(builder):
    return getattr(builder.info.file_format, "value", None)


def records(builder: Any, split: str, *features: str) -> list[np.ndarray]:
    """The named features of every record of a whole split, stacked in the order stored.

    Raises:
      ValueError: If the files are damaged, or the records do not have one shape.
    """
    with reading(builder.info.full_name):
        source = builder.as_data_source(split=split)
        columns = [[] for _ in features]
        for start in range(0, len(source), CHUNK):
            chunk = source.__getitems__(range(start, min(start + CHUNK, len(source))))
            for column, feature in zip(columns, features, strict=True):
                column.extend(record[feature] for record in chunk)
    for column, feature in zip(columns, features, strict=True):
        shapes = {np.shape(value) for value in column}
        if len(shapes) > 1:
            raise ValueError(
                f"{feature} of {builder.info.full_name} must have one shape, got {len(shapes)}."
            )
    return [np.asarray(column) for column in columns]


def check_count(builder: Any, split: str) -> None:
    """Raise ValueError unless the files of a split hold as many records as their description says.

    TFDS reads as many as are described, and no more.
    """
    with reading(builder.data_dir):
        described = builder.info.splits[split]
        source = type(builder.as_data_source(split=split).data_source)
        stored = len(source([str(path) for path in described.filepaths]))
        if stored != described.num_examples:
            raise ValueError(f"{split} must have {described.num_examples} records, got {stored}.")


def fingerprint(folder: Path) -> str:
    """Changes whenever a file of a prepared data set does: a hash of names, sizes and times."""
    files = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    described = [(name, status.st_size, status.st_mtime_ns) for name, status in files]
    return hashlib.sha256(repr(described).encode()).hexdigest()[:16]


def versions(folder: Path) -> list[Path]:
    """Folders of prepared versions, oldest first."""
    if not folder.is_dir():
        return []
    versions = [path for path in folder.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    versions = [path for path in versions if (path / "dataset_info.json").is_file()]
    return sorted(versions, key=lambda path: tuple(map(int, path.name.split("."))))


def _tfds():
    """TFDS, imported now because it takes most of a second; it hides what it lacks until later."""
    return optional("tensorflow_datasets", "array_record", "importlib_resources", "PIL")


def _check_known(name):
    known = ["digits", *_tfds().list_builders(with_community_datasets=False)]
    if name.split("/")[0] not in known:
        near = difflib.get_close_matches(name, known, n=3) or ["digits", "fashion_mnist", "cifar10"]
        raise ValueError(f"no data set {name!r}; TFDS has {', '.join(near)} and others.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back what TFDS and orbax log below errors, such as an optional library missing."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
