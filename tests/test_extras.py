# SPDX-License-Identifier: Apache-2.0
"""The light packages suffice for all that needs no extra, and what is missing is named."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import plprune
from plprune import extras
from plprune.extras import EXTRAS, MissingExtraError, extra_of, install_line, optional

ROOT = Path(__file__).parents[1]
FILES = list((ROOT / "plprune").rglob("*.py"))
LIGHT = {"jax", "jaxlib", "flax", "optax", "chex", "jaxtyping", "numpy", "scipy"}
# Flax itself imports rich; the others come with other extras, or with none.
HIDDEN = {name for names in EXTRAS.values() for name in names} - {"rich"} | {"matfree", "packaging"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.relative_to(ROOT / "plprune").as_posix())
def test_nothing_but_the_light_packages_is_imported_outright(path):
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names += [word.value for word in node.args if isinstance(word, ast.Constant)]
    found = {name.partition(".")[0] for name in names}
    without = {"packaging"} if path.name == "doctor.py" else set()  # It says so, and goes on.
    assert found - sys.stdlib_module_names <= LIGHT | {"plprune"} | without


def test_measuring_pruning_and_the_doctor_work_with_the_light_packages_alone():
    command = [sys.executable, ROOT / "tests" / "light_program.py", ROOT / "README.md", *HIDDEN]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    missed, findings = done.stdout.split()[-2:]
    assert int(missed) == 12
    assert int(findings) > len(LIGHT)


def test_every_extra_is_found_by_the_modules_that_it_brings():
    for extra, modules in EXTRAS.items():
        assert {extra_of(f"{module}.inner") for module in modules} == {extra}
    assert optional("sklearn.datasets").load_digits


def test_the_missing_module_is_named_though_another_one_imports_it(monkeypatch, tmp_path):
    (tmp_path / "tyro").mkdir()
    (tmp_path / "tyro" / "__init__.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tyro", raising=False)
    with pytest.raises(MissingExtraError, match=r"no_such_module is not .* 'experiments'") as error:
        optional("tyro")
    assert error.value.name == "no_such_module"
    assert isinstance(error.value, ImportError)
    assert isinstance(error.value, ValueError)


def test_the_line_that_installs_works_from_where_the_user_is(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_line("data") == 'pip install -e ".[data]"'
    monkeypatch.chdir(tmp_path)
    assert install_line("data") == f'pip install -e "{Path(plprune.__file__).parents[1]}[data]"'
    monkeypatch.setattr(extras, "_CHECKOUT", tmp_path)
    assert install_line("data") == 'pip install "plprune[data]"'
