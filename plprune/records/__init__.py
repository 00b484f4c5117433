# SPDX-License-Identifier: Apache-2.0
"""One run on disk: what was run, where, and every number it gave.

A record is the pair (record, curves): a dictionary written as ``record.json``, and arrays whose
first axis is the seed, written as ``metrics.npz`` under keys ``method/metric``.
"""

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, SupportsFloat

import numpy as np

from plprune.data.files import LARGEST, opened, text
from plprune.records.origin import numerics, provenance

__all__ = [
    "CURVES", "RECORD", "check_record", "differences", "numerics", "provenance", "read_arrays",
    "read_record", "same_record", "summarise", "summary", "write_arrays", "write_file",
    "write_record",
]  # fmt: skip
Record = dict[str, Any]
Curves = Mapping[str, np.ndarray]
PerSeed = Iterable[SupportsFloat | None]
Results = Mapping[str, Mapping[str, PerSeed]]  # method -> metric -> one per seed.

RECORD = "record.json"
CURVES = "metrics.npz"
FIELDS = {
    "experiment": str,
    "preset": str,
    "config": dict,
    "command": str,
    "versions": dict,
    "commit": (str, type(None)),
    "device": str,
    "seeds": list,
    "results": dict,
}
OPTIONAL = {"numerics": str, "begun": (str, type(None))}  # Dictionaries of names and words.
FORMAT, SEAL = 2, ("format", "checksum")  # The first format had no checksum.


def summary(values: PerSeed) -> dict[str, Any]:
    """Mean and standard error over the seeds, beside the values themselves.

    Args:
      values: One number per seed; None, NaN or an infinity where nothing was resolved.

    Returns:
      ``{"mean", "stderr", "values"}``. Unresolved values are None, and then so are the other two.
      `stderr` is sd / sqrt(n) with n - 1 in the variance; a single seed has none.
    """
    numbers = [_resolved(value) for value in values]
    if not numbers:
        raise ValueError("values must hold one number per seed, got none.")
    mean = stderr = None
    resolved = [number for number in numbers if number is not None]
    if len(resolved) == len(numbers):
        with np.errstate(over="ignore", invalid="ignore"):  # Beyond the largest float: unresolved.
            mean, stderr = _resolved(np.mean(resolved)), _resolved(_standard_error(resolved))
    return {"mean": mean, "stderr": stderr, "values": numbers}


def summarise(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """The field `results` of a record: `summary` of every metric of every method."""
    return {
        method: {metric: summary(values) for metric, values in metrics.items()}
        for method, metrics in results.items()
    }


def check_record(record: Any, curves: Curves) -> None:
    """Raise ValueError, naming the field, unless the pair has the shape of a record."""
    if not isinstance(record, dict):
        raise ValueError(f"a record must be a JSON object, got {type(record).__name__}.")
    for field, kind in FIELDS.items():
        if field not in record:
            raise ValueError(f"the record has no field {field!r}.")
        if not isinstance(record[field], kind):
            raise ValueError(f"{field} has the wrong type, {type(record[field]).__name__}.")
    seeds = record["seeds"]
    if not seeds or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds must be a list of at least one integer, got {seeds!r}.")
    for name, version in record["versions"].items():
        if not isinstance(version, str):
            raise ValueError(f"versions[{name!r}] must be a string, got {version!r}.")
    _check_optional(record)
    _check_results(record["results"], len(seeds))
    _check_curves(curves, len(seeds))


def write_record(folder: Path | str, record: Record, curves: Curves) -> None:
    """Write the pair into `folder`, which is made where it is missing.

    Every file is written aside and renamed, and ``record.json`` comes last: a folder that has one
    holds the whole run, whenever the process or the machine stopped. Its last two keys, `format`
    and `checksum`, are of the file and not of the record: `read_record` leaves them out.
    """
    check_record(record, curves)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sealed = _sealed(record)
    (folder / RECORD).unlink(missing_ok=True)
    write_file(folder / CURVES, lambda file: _save_arrays(file, curves))
    write_file(folder / RECORD, lambda file: file.write(sealed.encode()))


def read_record(folder: Path | str) -> tuple[Record, dict[str, np.ndarray]]:
    """The pair in `folder`, checked; nothing in it is ever unpickled.

    A record with a checksum is held against it; one of an older version has none. Whoever changes
    a record by hand removes `format` and `checksum` and vouches for it; a file all in one line, as
    no version wrote it, is taken as such a change.

    Raises:
      ValueError: naming the file, where it is missing, damaged, not a regular file or not a record.
    """
    folder = Path(folder)
    record, curves = _read_json(folder / RECORD), read_arrays(folder / CURVES)
    try:
        check_record(record, curves)
    except ValueError as error:
        raise ValueError(f"{folder / RECORD} is not a valid record: {error}") from None
    return record, curves


def same_record(a: tuple[Record, Curves], b: tuple[Record, Curves]) -> bool:
    """Whether two runs gave the same numbers: see `differences`."""
    return not differences(a, b)


def differences(a: tuple[Record, Curves], b: tuple[Record, Curves]) -> list[str]:
    """Names of the results and curves that differ in any bit, or that only one side has.

    Names ending in ``_seconds`` are left out. Everything but the numbers (config, command,
    versions, commit, device) may differ.
    """
    left, right = _numbers(*a), _numbers(*b)
    return sorted(key for key in left | right if left.get(key) != right.get(key))


def read_arrays(path: Path | str) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file; ValueError naming the file where it is missing or damaged."""
    try:
        with opened(path) as file, np.load(file, allow_pickle=False) as archive:
            claimed = sum(member.file_size for member in archive.zip.infolist())
            if claimed > LARGEST:  # Of zeros, a thousandth of it lies on the disk.
                raise ValueError(f"it must hold at most {LARGEST:,} bytes, got {claimed:,}.")
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise ValueError(f"there is no {path}.") from None
    except Exception as error:  # Damage may surface anywhere in zipfile, zlib and NumPy.
        raise ValueError(f"{path} is damaged: {error}") from None


def write_file(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Call `write` on a file beside `path`, then rename it: `path` is old or new, never half."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with aside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


def write_arrays(path: Path, arrays: Curves) -> None:
    """Write an ``.npz`` file through `write_file`; arrays of objects are refused."""
    write_file(path, lambda file: _save_arrays(file, arrays))


def _save_arrays(file, arrays):
    np.savez_compressed(file, allow_pickle=False, **arrays)


def _read_json(path):
    def refuse(token):
        raise ValueError(f"{token} is not a number of a record; write null.")

    try:
        found = text(path)
        record = json.loads(found, parse_constant=refuse)
        if isinstance(record, dict) and not record.keys().isdisjoint(SEAL):
            _check_seal(found.replace("\r\n", "\n"), record)
            record = _unsealed(record)
        return record
    except FileNotFoundError:
        raise ValueError(f"there is no {path}.") from None
    except (ValueError, OSError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def _unsealed(record):
    return {key: value for key, value in record.items() if key not in SEAL}


def _sealed(record):
    """The lines of ``record.json``, with the SHA-256 of the same lines without it."""

    def lines(checksum):
        seal = dict(zip(SEAL, (FORMAT, checksum), strict=True))
        return json.dumps(_unsealed(record) | seal, indent=1, allow_nan=False) + "\n"

    return lines(hashlib.sha256(lines("").encode()).hexdigest())


def _check_seal(found, record):
    # No damage joins lines: where all is in one, a program wrote it that knew of no checksum.
    if "\n" in found.strip() and found != _sealed(record):
        raise ValueError("it does not match its checksum.")


def _resolved(value):
    return None if value is None or not math.isfinite(value) else float(value)


def _standard_error(numbers):
    return np.std(numbers, ddof=1) / math.sqrt(len(numbers)) if len(numbers) > 1 else None


def _check_optional(record):
    for field, kind in OPTIONAL.items():
        words = record.get(field, {})
        if not isinstance(words, dict) or not all(isinstance(w, kind) for w in words.values()):
            raise ValueError(f"{field} must map names to words, got {words!r:.80}.")


def _check_results(results, num_seeds):
    for method, metrics in results.items():
        if not isinstance(metrics, dict):
            raise ValueError(f"results[{method!r}] must map metrics to numbers.")
        for metric, entry in metrics.items():
            where = f"results[{method!r}][{metric!r}]"
            if not isinstance(entry, dict) or set(entry) != {"mean", "stderr", "values"}:
                raise ValueError(f"{where} must have mean, stderr and values.")
            values = entry["values"]
            if not isinstance(values, list) or len(values) != num_seeds:
                raise ValueError(f"{where} must have {num_seeds} values, one per seed.")
            if not all(map(_is_number, [entry["mean"], entry["stderr"], *values])):
                raise ValueError(f"{where} must hold finite numbers or null.")


def _is_number(value):
    return value is None or (type(value) in (int, float) and abs(value) <= sys.float_info.max)


def _check_curves(curves, num_seeds):
    for key, array in curves.items():
        if "/" not in key:
            raise ValueError(f"a curve must be named method/metric, got {key!r}.")
        if array.dtype.kind not in "biuf" or array.ndim < 2 or len(array) != num_seeds:
            raise ValueError(
                f"the curve {key!r} must be numbers [{num_seeds} seeds, step], "
                f"got {array.dtype} {list(array.shape)}."
            )


def _numbers(record, curves):
    """Every number under its name, as bytes: -0.0 is not 0.0, and NaN equals itself."""
    named = {}
    for method, metrics in record["results"].items():
        for metric, entry in metrics.items():
            named[f"{method}/{metric}"] = json.dumps(entry, sort_keys=True)
    for key, array in curves.items():
        named[f"{key} (curve)"] = (str(array.dtype), array.shape, array.tobytes())
    return {k: v for k, v in named.items() if not k.removesuffix(" (curve)").endswith("_seconds")}
