# SPDX-License-Identifier: Apache-2.0
"""Entry point: ``python -m benchmarks NAME [--repeats R] [--only TABLE]``."""

import argparse
import importlib
import pkgutil
import sys

import benchmarks

_INTERNAL = {
    "__main__", "contestants", "environments", "large_models", "modules", "problems", "public",
    "race", "workloads",
}  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark and print its table; 2 for bad input."""
    names = sorted(m.name for m in pkgutil.iter_modules(benchmarks.__path__))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=[n for n in names if n not in _INTERNAL])
    parser.add_argument("--repeats", type=int, default=7, help="timed calls; the median counts")
    parser.add_argument("--only", help="one table of a benchmark that has several")
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {options.repeats}")
    benchmark = importlib.import_module(f"benchmarks.{options.name}")
    if options.only is None:
        return benchmark.main(options.repeats)
    tables = getattr(benchmark, "TABLES", {})
    if options.only not in tables:
        parser.error(f"--only must be one of {tuple(tables)}, got {options.only!r}")
    return tables[options.only](options.repeats)


if __name__ == "__main__":
    sys.exit(main())
