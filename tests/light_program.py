# SPDX-License-Identifier: Apache-2.0
"""What the light packages alone must do: `test_extras` runs it where all others are hidden.

Arguments: a README whose Python blocks are run, and modules to hide. With none to hide it serves
for an environment that has the light packages alone.
"""

import importlib.util
import pkgutil
import re
import sys
import tempfile
from pathlib import Path

README, *HIDDEN = sys.argv[1:]
sys.modules.update(dict.fromkeys(HIDDEN))  # What is None there is not found.

import plprune  # noqa: E402
from plprune import data, doctor, functional, storage  # noqa: E402
from plprune.extras import MissingExtraError, optional  # noqa: E402

for module in pkgutil.walk_packages(plprune.__path__, "plprune."):
    importlib.import_module(module.name)
for name in plprune.__all__:
    getattr(plprune, name)
found: dict = {}
for block in re.findall(r"```python\n(.*?)```", Path(README).read_text("utf-8"), re.DOTALL):
    exec(compile(block, README, "exec"), found)

folder = Path(tempfile.mkdtemp())
version = folder / "mnist" / "3.0.1"
version.mkdir(parents=True)
(version / "dataset_info.json").write_text("{}")
(folder / "step_0000000001").mkdir()
small, keep = found["small"], found["keep"]
NEEDING = {
    lambda: data.load("digits", split="train"): ("sklearn", "data"),
    lambda: data.load("mnist", split="train", data_dir=folder): ("tensorflow_datasets", "data"),
    lambda: data.load_text("mnist", split="train", data_dir=folder): (
        "tensorflow_datasets",
        "data",
    ),
    lambda: data.load("absent", split="train", data_dir=folder): ("tensorflow_datasets", "data"),
    lambda: data.prepare("mnist", folder): ("tensorflow_datasets", "data"),
    lambda: plprune.save_shrunk(folder / "new", small, keep): ("orbax", "storage"),
    lambda: storage.save_checkpoint(folder, 2, small): ("orbax", "storage"),
    lambda: storage.load_checkpoint(folder, small): ("orbax", "storage"),
    lambda: optional("ray"): ("ray", "ray"),
    lambda: optional("matplotlib.figure"): ("matplotlib", "pictures"),
    lambda: functional.functional_equinox(None): ("equinox", "equinox"),
    lambda: functional.functional_haiku(None, {}): ("haiku", "haiku"),
}

before = sorted(folder.iterdir())
missed = 0
for call, (module, extra) in NEEDING.items():
    if importlib.util.find_spec(module):
        continue  # Flax brings orbax, which is missing only where it is hidden.
    try:
        call()
    except MissingExtraError as error:
        if error.name != module or f'[{extra}]"' not in str(error):
            raise
        missed += 1
    else:
        raise ValueError(f"{module} of the extra {extra!r} must be missed.")
if sorted(folder.iterdir()) != before:
    raise ValueError("nothing may be written before an extra is missed.")
findings = doctor.findings()
faults = [finding for finding in findings if finding.verdict == doctor.FAULT]
if faults:
    raise ValueError(f"the doctor must find no fault, got {faults}.")
print(missed, len(findings))  # noqa: T201
