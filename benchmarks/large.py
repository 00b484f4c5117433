# SPDX-License-Identifier: Apache-2.0
"""Models and checkpoints that are larger than what may be held: plans from shapes, cuts on disk.

`--only plan` needs the models of tunix (see `benchmarks/public/decoders.py`), `--only checkpoint`
6.5 GB of disk. Each line runs in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.environments import ROOT
from benchmarks.gating import say

MODELS = ("llama", "llama stacked", "qwen stacked", "qwen")
SECONDS, MIB = 20, 1430  # At most, for the groups; resident in all: 1.5 GB.
ABOVE_START = 572  # MiB while a checkpoint is cut: 600 MB.
KILLS = 10


def plans(repeats: int) -> int:
    """Groups and a plan of published models, from shapes; their tiny siblings computed."""
    del repeats
    failed = False
    say(f"{'':16}{'parameters':>16}{'groups':>8}{'find':>9}{'plan':>9}{'MiB':>7}  masked - shrunk")
    for model in MODELS:
        found, reason = _child("large_plan", *model.split())
        if found is None:
            say(f"{model:16}  skipped: {reason}")
            continue
        # Unrolled over layers and experts, this one's graph has 92,000 equations.
        failed |= model != "qwen" and (found["find"] > SECONDS or found["mib"] > MIB)
        failed |= not found["gap"] < 1e-5
        say(
            f"{model:16}{found['parameters']:16,}{found['groups']:8}{found['find']:8.1f}s"
            f"{found['plan']:8.1f}s{found['mib']:7.0f}  {found['gap']:.0e}\n{found['text']}\n"
        )
    say(f"targets: {SECONDS} s of processor time to find the groups, {MIB} MiB, 1e-5")
    return int(failed)


def checkpoint(repeats: int, scale: float = 1.0, kills: int = KILLS) -> int:
    """A checkpoint of 4 GB cut in one run, and in runs that are killed."""
    del repeats
    with tempfile.TemporaryDirectory() as folder:
        run = partial(_child, "large_checkpoint")
        saved, reason = run("save", folder, str(scale))
        if saved is None:
            say(f"skipped: {reason}")
            return 1
        say(f"source: {saved['bytes']:,} bytes on disk")
        before = _stamps(Path(folder) / "source")
        done, reason = run("cut", folder, str(scale))
        same, why = run("compare", folder, str(scale))
        if done is None or same is None:
            say(f"failed: {reason or why}")
            return 1
        say(
            f"{done['cut']} of {done['arrays']} arrays, {done['bytes_before']:,} bytes to "
            f"{done['bytes_after']:,}: {done['cpu_seconds']:.1f} s of processor time, "
            f"{done['mib']:.0f} MiB above the {done['start_mib']:.0f} at the start "
            f"(target {ABOVE_START}); equal to shrink in memory: {same['same']}"
        )
        shutil.rmtree(Path(folder) / "target")
        found = _killed(folder, scale, kills, done["seconds"])
        again, _ = run("compare", folder, str(scale))
        untouched = before == _stamps(Path(folder) / "source")
        equal = again is not None and again["same"]
        say(f"killed {found} times: equal to shrink: {equal}; source as it was: {untouched}")
    return int(not (same["same"] and equal and untouched and done["mib"] < ABOVE_START))


def _killed(folder, scale, kills, seconds) -> int:
    """How often a run was killed before the last one ended; the target is never seen before."""
    target, count = Path(folder) / "target", 0
    for _ in range(kills):
        child = subprocess.Popen(_command("large_checkpoint", "cut", folder, str(scale)),
                                 env=_environment(), stdout=subprocess.DEVNULL)  # fmt: skip
        hidden = target.with_name(".target.shrinking")
        size = _written(hidden)
        # Killed while it writes, wherever it is by then.
        while child.poll() is None and _written(hidden) <= size:
            time.sleep(0.05)
        time.sleep(seconds / (kills + 1))
        if child.poll() is None:
            child.kill()
            count += 1
            if target.exists():
                raise RuntimeError("a target was seen before it was complete.")
        child.wait()
    _child("large_checkpoint", "cut", folder, str(scale))
    return count


def _written(folder):
    return sum(1 for _ in folder.rglob("*")) if folder.is_dir() else 0


def _child(program, *arguments):
    """What a program prints, or None and why it failed."""
    done = subprocess.run(_command(program, *arguments), env=_environment(), capture_output=True,
                          text=True)  # fmt: skip
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
    return json.loads(done.stdout.splitlines()[-1]), ""


def _command(program, *arguments):
    return [sys.executable, str(ROOT / "benchmarks" / "contestants" / f"{program}.py"), *arguments]


def _environment():
    return os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}


def _stamps(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


TABLES = {"plan": plans, "checkpoint": checkpoint}


def main(repeats: int) -> int:
    """Both tables; 1 where a target is missed."""
    return max(table(repeats) for table in TABLES.values())
