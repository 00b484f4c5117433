# SPDX-License-Identifier: Apache-2.0
"""Pinned environments of peers that cannot live in ours, made on demand and kept."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
REQUIREMENTS = {
    # The last release imports on jax up to 0.4.25.
    "neural-tangents": (
        "jax==0.4.25", "jaxlib==0.4.25", "neural-tangents==0.6.5", "numpy<2", "scipy<1.13",
    ),
    "torch": (
        "torch==2.13.0", "curvlinops-for-pytorch==3.0.1", "pyhessian==0.1", "scipy",
        "torch-pruning==1.6.1",
    ),
}  # fmt: skip


def interpreter(name: str) -> tuple[str | None, str]:
    """The environment's Python and "", or None and the reason it could not be made.

    "own" is the running environment. The others live in `.venvs/NAME`; a folder whose marker file
    does not list today's requirements is older or was interrupted, and is finished first.
    """
    if name == "own":
        return sys.executable, ""
    folder = ROOT / ".venvs" / name
    python, marker = folder / "bin" / "python", folder / "complete"
    wanted = "\n".join(REQUIREMENTS[name])
    if not marker.exists() or marker.read_text() != wanted:
        for command in (
            [sys.executable, "-m", "venv", str(folder)],
            [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
                return None, f"no environment {name}: {(lines or [done.stderr])[-1].strip()}"
        marker.write_text(wanted)
    return str(python), ""
