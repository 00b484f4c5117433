# SPDX-License-Identifier: Apache-2.0
"""What is here and what is missing: ``python -m plprune.doctor``, exit code 0 if nothing needed is.

Each check looks at one thing and returns what it found; the command alone prints.
"""

import importlib
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import plprune
from plprune.data.cache import user_folder
from plprune.extras import MissingExtraError, install_line, missing

GOOD, NOTE, FAULT = "ok", "note", "FAULT"
NEEDED_PYTHON = (3, 11)
HEALTHY, UNHEALTHY = 0, 1


class Finding(NamedTuple):
    """What one check saw."""

    verdict: str  # GOOD; NOTE for what is optional; FAULT for what plprune cannot do without.
    subject: str
    text: str  # What is there; where something is missing, also what to do.


def findings() -> list[Finding]:
    """Everything that was found, in the order in which a reader would mend it."""
    checks: Mapping[str, Callable[[], Iterator[Finding]]] = {
        "python": python, "packages": packages, "devices": devices, "precision": precision,
        "arithmetic": arithmetic, "data": data_folders, "cache": cache,
    }  # fmt: skip
    found: list[Finding] = []
    for subject, check in checks.items():
        try:
            found += check()
        except Exception as error:  # A doctor must outlive what it finds.
            found.append(Finding(FAULT, subject, f"{type(error).__name__}: {error}"))
    return found


def python() -> Iterator[Finding]:
    """The interpreter and the operating system."""
    enough = sys.version_info >= NEEDED_PYTHON
    text = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    wanted = "" if enough else f"; plprune needs {'.'.join(map(str, NEEDED_PYTHON))} or newer"
    yield Finding(GOOD if enough else FAULT, "python", text + wanted)


def packages() -> Iterator[Finding]:
    """Whether every requirement of plprune is installed in a version that it allows."""
    yield Finding(GOOD, "plprune", f"{plprune.__version__} in {Path(plprune.__file__).parent}")
    try:
        lines = metadata.requires("plprune") or ()
    except metadata.PackageNotFoundError:
        text = "is imported from a folder, not installed: its requirements are not known"
        yield Finding(NOTE, "plprune", text)
        return
    try:
        declared = list(map(_requirement(), lines))
    except ModuleNotFoundError:
        yield from _by_name(lines)
        return
    for requirement in declared:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)
    yield _extras(declared)


def devices() -> Iterator[Finding]:
    """What JAX computes on, and whether it overlooks an accelerator."""
    jax = importlib.import_module("jax")
    found = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in found}))
    text = f"{len(found)} x {kinds} ({found[0].platform}), of process {jax.process_index()}"
    yield Finding(GOOD, "devices", f"{text} of {jax.process_count()}")
    nvidia = Path("/proc/driver/nvidia/version").exists()
    if nvidia and found[0].platform == "cpu":
        text = f"there is an NVIDIA driver, but JAX sees the CPU alone: {install_line('cuda')}"
        yield Finding(NOTE, "devices", text)


def precision() -> Iterator[Finding]:
    """What the default float type can tell from zero."""
    jax = importlib.import_module("jax")
    numpy = importlib.import_module("jax.numpy")
    dtype = numpy.zeros(()).dtype
    limit = 100 * float(numpy.finfo(dtype).eps)
    more = "" if jax.config.jax_enable_x64 else "; JAX_ENABLE_X64=1 gives float64"
    text = f"{dtype}: a smallest eigenvalue is told from zero above about {limit:.0e} x the largest"
    yield Finding(GOOD, "precision", text + more)


def arithmetic() -> Iterator[Finding]:
    """Whether a PL constant comes out as NumPy has it, within its own error bound."""
    jax = importlib.import_module("jax")
    inputs = np.random.default_rng(0).normal(size=(8, 32))
    truth = np.linalg.eigvalsh(inputs @ inputs.T)[0] / len(inputs)
    with jax.numpy_rank_promotion("allow"):
        estimate = plprune.pl_constant(
            lambda params, rows: rows @ params,
            jax.numpy.zeros((32, 1)),
            jax.numpy.asarray(inputs, jax.numpy.zeros(()).dtype),
        )
    away, bound = abs(float(estimate.value) - truth), float(estimate.error)
    text = f"the PL constant of a linear model is {away:.0e} away from NumPy's"
    good = bool(estimate.resolved) and away <= bound + 100 * np.finfo(np.float32).eps * truth
    yield Finding(GOOD if good else FAULT, "arithmetic", f"{text}; its own bound is {bound:.0e}")


def data_folders() -> Iterator[Finding]:
    """Which data sets can be loaded: the digits, and those that TFDS has prepared."""
    from plprune.data.prepared import folders, versions

    absent = missing("data")
    if absent:
        text = f"not all data sets can be loaded without {', '.join(absent)}"
        yield Finding(NOTE, "data", f"{text}: {install_line('data')}")
        return
    yield Finding(GOOD, "data", "digits, with scikit-learn")
    for folder in folders(None):
        names = sorted(p.name for p in folder.iterdir() if versions(p)) if folder.is_dir() else ()
        said = "TFDS_DATA_DIR" if "TFDS_DATA_DIR" in os.environ else "TFDS_DATA_DIR is not set"
        if names:
            yield Finding(GOOD, "data", f"{', '.join(names)} in {folder} ({said})")
        else:
            how = "python -m experiments prepare fashion_mnist"
            text = f"no data set is prepared in {folder} ({said}): {how}"
            yield Finding(NOTE, "data", text)


def cache() -> Iterator[Finding]:
    """Whether decoded data can be kept between runs."""
    try:
        folder = Path(user_folder())
    except MissingExtraError as error:
        yield Finding(NOTE, "cache", f"no cache for data sets: {error}")
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            yield Finding(GOOD, "cache", str(folder))
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}): data sets are decoded in every run"
        yield Finding(NOTE, "cache", text)


def main(argv: Sequence[str] = ()) -> int:
    """Print what was found; the exit code is 1 where something needed is missing or wrong."""
    if argv:
        sys.stderr.write(f"plprune.doctor takes no arguments, got {' '.join(argv)}.\n")
        return 2
    found = findings()
    width = max(len(finding.subject) for finding in found)
    for verdict, subject, text in found:
        sys.stdout.write(f"{verdict:<5}  {subject:<{width}}  {text}\n")
    faults = sum(finding.verdict == FAULT for finding in found)
    sys.stdout.write(
        f"{faults} faults.\n" if faults else "Nothing that plprune needs is missing.\n"
    )
    return UNHEALTHY if faults else HEALTHY


def _requirement() -> Any:
    """What reads a requirement, of the package that pip's own rules are in."""
    return importlib.import_module("packaging.requirements").Requirement


def _by_name(lines: Sequence[str]) -> Iterator[Finding]:
    """Whether each requirement is there in any version; what extras want is left out."""
    for line in lines:
        if "extra ==" not in line:
            (name,) = re.findall(r"^[\w.-]+", line)
            try:
                yield Finding(GOOD, name, metadata.version(name))
            except metadata.PackageNotFoundError:
                yield Finding(FAULT, name, f"is missing: pip install '{line}'")
    text = "is not installed: neither versions nor extras are looked at: pip install packaging"
    yield Finding(NOTE, "packaging", text)


def _package(requirement: Any) -> Finding:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        text = f"is missing: pip install '{requirement.name}{requirement.specifier}'"
        return Finding(FAULT, requirement.name, text)
    if requirement.specifier.contains(version, prereleases=True):
        return Finding(GOOD, requirement.name, version)
    text = f"{version}, but plprune needs {requirement.specifier}"
    return Finding(FAULT, requirement.name, text)


def _extras(declared: Sequence[Any]) -> Finding:
    """Which optional parts are complete."""
    names = metadata.metadata("plprune").get_all("Provides-Extra") or ()
    parts = {name: [_package(one) for one in _wanted_by(declared, name)] for name in names}
    there = [e for e, found in parts.items() if all(one.verdict == GOOD for one in found)]
    absent = [extra for extra in parts if extra not in there]
    text = f"installed: {', '.join(there) or 'none'}; not installed: {', '.join(absent) or 'none'}"
    return Finding(NOTE if absent else GOOD, "extras", text)


def _wanted_by(declared: Sequence[Any], extra: str) -> Iterator[Any]:
    """The requirements that come with `extra` alone, and those of the extras that they ask for."""
    for requirement in declared:
        marker = requirement.marker
        if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
            yield requirement
            if requirement.extras and _package(requirement).verdict == GOOD:
                inner = list(map(_requirement(), metadata.requires(requirement.name) or ()))
                for name in requirement.extras:
                    yield from _wanted_by(inner, name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
