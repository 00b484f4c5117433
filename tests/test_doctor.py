# SPDX-License-Identifier: Apache-2.0
"""The doctor names what is there, says what is missing and what to do, and never falls ill."""

import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest

import plprune
from plprune import doctor
from plprune.types import Estimate


def said(check):
    return [(finding.verdict, finding.text) for finding in check()]


def test_the_command_says_that_nothing_is_missing(tmp_path):
    environment = os.environ | {"TFDS_DATA_DIR": str(tmp_path), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "plprune.doctor"], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in (
        f"plprune                      {plprune.__version__}", metadata.version("jax"), "1 x cpu",
        "float32", "JAX_ENABLE_X64", f"no data set is prepared in {tmp_path}", "missing.",
    ):  # fmt: skip
        assert " ".join(part.split()) in " ".join(done.stdout.split())
    assert not done.stderr


def test_a_package_that_is_missing_or_too_old_is_a_fault(monkeypatch, capsys):
    wanted = ["numpy>=1", "no-such-package>=2", "scipy<0.1", "ray; extra == 'ray'"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    found = {finding.subject: finding for finding in doctor.packages()}
    assert found["numpy"] == (doctor.GOOD, "numpy", np.__version__)
    assert found["no-such-package"].verdict == doctor.FAULT
    assert "pip install 'no-such-package>=2'" in found["no-such-package"].text
    assert "but plprune needs <0.1" in found["scipy"].text
    assert "ray" not in found
    monkeypatch.setattr(doctor, "findings", lambda: list(found.values()))
    assert doctor.main() == doctor.UNHEALTHY
    assert "2 faults." in capsys.readouterr().out


def test_without_an_installed_distribution_that_is_said(monkeypatch):
    def absent(_):
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "requires", absent)
    assert [finding.verdict for finding in doctor.packages()] == [doctor.GOOD, doctor.NOTE]


def test_extras_are_told_apart_to_the_extras_of_what_they_need(monkeypatch):
    wanted = {
        "plprune": ["numpy", "scipy; extra == 'a'", "gone; extra == 'b'", "jax[x]; extra == 'c'"],
        "jax": ["gone; extra == 'x'"],
    }
    monkeypatch.setattr(metadata, "requires", wanted.get)
    provided = type("Metadata", (), {"get_all": lambda *_: ["a", "b", "c"]})()
    monkeypatch.setattr(metadata, "metadata", lambda _: provided)
    assert list(doctor.packages())[-1].text == "installed: a; not installed: b, c"


def test_a_wrong_number_is_a_fault(monkeypatch):
    assert [verdict for verdict, _ in said(doctor.arithmetic)] == [doctor.GOOD]
    wrong = Estimate(np.asarray(0.1), np.asarray(1e-6), np.asarray(True))
    monkeypatch.setattr(plprune, "pl_constant", lambda *_: wrong, raising=False)
    assert [verdict for verdict, _ in said(doctor.arithmetic)] == [doctor.FAULT]


def test_prepared_data_sets_are_listed(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    assert said(doctor.data_folders)[1][0] == doctor.NOTE
    version = tmp_path / "mnist" / "3.0.1"
    version.mkdir(parents=True)
    (version / "dataset_info.json").write_text("{}")
    assert said(doctor.data_folders)[1] == (doctor.GOOD, f"mnist in {tmp_path} (TFDS_DATA_DIR)")


def test_a_cache_that_cannot_be_written_is_a_note(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(doctor, "user_folder", lambda: tmp_path / "file")
    ((verdict, text),) = said(doctor.cache)
    assert verdict == doctor.NOTE
    assert "cannot be written" in text


def test_without_packaging_requirements_are_looked_for_by_name(monkeypatch):
    wanted = ["numpy>=1", "no-such-package>=2", "scipy<0.1", "ray; extra == 'ray'"]
    monkeypatch.setattr(metadata, "requires", lambda _: wanted)
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    found = {finding.subject: finding for finding in doctor.packages()}
    assert found["numpy"] == (doctor.GOOD, "numpy", np.__version__)
    assert found["scipy"].verdict == doctor.GOOD
    assert "pip install 'no-such-package>=2'" in found["no-such-package"].text
    assert "ray" not in found
    assert found["packaging"].verdict == doctor.NOTE
    assert "neither versions nor extras" in found["packaging"].text


def test_an_extra_that_data_need_is_a_note_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    for check, extra in ((doctor.data_folders, "data"), (doctor.cache, "cache")):
        ((verdict, text),) = said(check)
        assert verdict == doctor.NOTE
        assert f'[{extra}]"' in text


def test_a_check_that_fails_is_a_finding(monkeypatch):
    def broken():
        raise RuntimeError("no such device")

    for name in ("python", "packages", "devices", "precision", "arithmetic", "data_folders"):
        monkeypatch.setattr(doctor, name, broken)
    found = doctor.findings()
    assert found[0] == (doctor.FAULT, "python", "RuntimeError: no such device")
    assert len(found) == 7


@pytest.mark.parametrize("x64", [False, True])
def test_the_precision_is_that_of_the_default_type(x64):
    import jax

    with jax.enable_x64(x64):
        (text,) = (text for _, text in said(doctor.precision))
    assert ("float64: " in text) == x64
    assert ("2e-14" if x64 else "1e-05") in text
    assert ("JAX_ENABLE_X64" in text) != x64


def test_arguments_are_refused(capsys):
    assert doctor.main(["--help"]) == 2
    assert "takes no arguments" in capsys.readouterr().err
