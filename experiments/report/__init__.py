# SPDX-License-Identifier: Apache-2.0
"""A self-contained page, figures and tables, all from the record alone.

What is said and drawn belongs to the record's experiment, in its modules ``words`` and ``figures``;
this package knows how it looks.
"""

import os
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import jinja2
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

import experiments
from experiments.report import style
from experiments.report.downloads import curves_csv, results_csv
from experiments.report.pictures import (
    Picture,
    read_pictures,
    write_overview,
    write_pictures,
)
from experiments.report.tables import (
    PLUS_MINUS,
    Cell,
    Metric,
    Table,
    known_metrics,
    metric_cell,
    metric_tables,
    side_by_side,
)
from plprune.records import RECORD, Record, read_record, summary, write_file

PAGE, INDEX = "report.html", "index.html"
RUNS = ("run", "experiment", "preset", "methods", "seeds", "device", "commit")


def write_reports(path: str | Path) -> list[Path]:
    """Draw the run in `path` again, or every run below it with an index of them all.

    What an experiment draws of several of its runs together stands in the index, and beside it in
    ``figures/``.

    Returns:
      The pages that were written.

    Raises:
      ValueError: where there is no record, or one that is damaged. Of many, every sound one is
        drawn and the index says what is wrong with the others, before they are named here.
    """
    path = Path(path)
    path = path.parent if path.name == RECORD else path
    if (path / RECORD).is_file():
        parts = _parts(path, read_record(path)[0])
        return [write_report(folder) for folder in (*parts, path)]
    # The page of a folder shows the pictures of those below it.
    folders = sorted((found.parent for found in path.rglob(RECORD)), reverse=True)
    if not folders:
        raise ValueError(f"there is no {RECORD} in {path} or below it.")
    pages, runs, faults = [], {}, {}
    for folder in folders:
        try:
            pages.append(write_report(folder))
            runs[folder] = read_record(folder)
        except (ValueError, OSError) as error:
            faults[folder.relative_to(path).as_posix()] = str(error)
    pictures: list[Picture] = []
    try:
        pictures = _draw_together(path, [runs[folder] for folder in sorted(runs)])
    except Exception as error:
        faults["runs together"] = f"Together they cannot be drawn: {_named(error)}."
    rows = tuple(_index_row(path, folder, runs[folder][0]) for folder in sorted(runs))
    index = {"record": None, "tables": [Table("", RUNS, rows)], "faults": faults}
    _write_page(path / INDEX, index | {"pictures": pictures})
    if faults:
        told = f"{path / INDEX} has the other {len(runs)} runs."
        raise ValueError(" ".join([*faults.values(), told]))
    return [*pages, path / INDEX]


def write_report(folder: Path) -> Path:
    """Write the figures and ``report.html`` of the record in `folder`; the page's path.

    Raises:
      ValueError: where the record is missing, damaged, or not one that its experiment can draw.
    """
    record, curves = read_record(folder)
    try:
        _write_report(folder, record, curves)
    except OSError:  # Of the disk, not of the record.
        raise
    except Exception as error:
        raise ValueError(
            f"{folder / RECORD} cannot be drawn, as if another version had written it: "
            f"{_named(error)}."
        ) from error
    return folder / PAGE


def is_drawn(folder: Path) -> bool:
    """Whether the page is there, which is written after the figures."""
    return (folder / PAGE).exists()


def tables(record: Record) -> list[Table]:
    """The tables of a record: the experiment's own, or one per regime."""
    words = _module(record, "words")
    if hasattr(words, "tables"):
        return list(words.tables(record))
    return metric_tables(record, _metrics(record))


def show(record: Record, console: Console) -> None:
    """Print the tables: a row per metric and a column per method, as the width allows."""
    for table in tables(record):
        for rows in side_by_side(table, console.width):
            printed = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title) or None)
            printed.add_column("")
            for row in rows:
                printed.add_column(Text(row[0].text), justify="right")
            for i, column in enumerate(table.columns[1:], 1):
                if any(row[i].text for row in rows):
                    printed.add_row(Text(column), *(Text(row[i].text) for row in rows))
            console.print(printed)
    for line in (_seeds(record), *style.lossy(record)):
        console.print(Text(line), soft_wrap=True)
    if len(record["seeds"]) == 1:
        console.print("One seed: no standard errors.", highlight=False)


def _write_report(folder, record, curves):
    words, config = (_module(record, name) for name in ("words", "config"))
    metrics, pictures = _metrics(record), _pictures(folder, record, curves)
    told = {
        "record": record,
        "about": (config.__doc__ or "").strip().partition("\n")[0],
        "seeds": _seeds(record),
        "pictures": pictures,
        "drawn_in": dict.fromkeys(p.path.parent.relative_to(folder).as_posix() for p in pictures),
        "tables": tables(record),
        "seed_tables": [_seed_table(record, *item) for item in metrics.items()],
        "metrics": metrics,
        "measured": words.measured(record) if hasattr(words, "measured") else [],
        "lossy": style.lossy(record),
        "results_csv": results_csv(record),
        "curves_csv": curves_csv(curves),
    }
    _write_page(folder / PAGE, told)


def _pictures(folder, record, curves) -> list[Picture]:
    """The pictures of the commands that the record is made of, or else its own, drawn now."""
    caption, parts = style.caption(record), _parts(folder, record)
    if not parts:
        figures, words = (_module(record, name) for name in ("figures", "words"))
        findings = words.findings(record) if hasattr(words, "findings") else {}
        with style.style():
            drawn = figures.draw(record, curves) if figures else {}
            return write_pictures(folder, drawn, caption, findings)
    for part in parts:
        if not is_drawn(part):
            write_report(part)
    found = [picture for part in parts for picture in read_pictures(part)]
    write_overview(folder, found, caption)
    return found


def _parts(folder, record) -> list[Path]:
    """Folders of the commands whose records, together, are this one."""
    names = getattr(_module(record, "config"), "FIGURES", ())
    parts = [folder / name for name in names if (folder / name / RECORD).is_file()]
    results: dict[str, Any] = {}
    try:
        for part in parts:
            for method, entries in read_record(part)[0]["results"].items():
                results[method] = results.get(method, {}) | entries
    except ValueError:  # What is left of the commands is damaged.
        return []
    return parts if results == record["results"] else []


def _draw_together(root, runs) -> list[Picture]:
    """Pictures of several runs together, by each experiment's `pooled`."""
    groups: dict[ModuleType, list] = {}
    for run in runs:
        figures = _module(run[0], "figures")
        if figures is not None and hasattr(figures, "pooled"):
            groups.setdefault(figures, []).append(run)
    if not groups:
        return []
    caption = style.caption(*(record for own in groups.values() for record, _ in own))
    with style.style():
        drawn = {k: v for figures, own in groups.items() for k, v in figures.pooled(own).items()}
        return write_pictures(root, drawn, caption)


def _module(record: Record, name: str) -> ModuleType | None:
    """The module `name` of the record's experiment, None where it has none.

    The experiment is looked up among ours: a record cannot choose what is imported.
    """
    path = experiments.EXPERIMENTS.get(record["experiment"])
    if path is None:
        raise ValueError(
            f"the record is of an unknown experiment, {record['experiment']!r}; "
            f"known are {', '.join(experiments.EXPERIMENTS)}."
        )
    try:
        return import_module(f"{path}.{name}")
    except ModuleNotFoundError as error:
        if error.name not in (path, f"{path}.{name}"):
            raise
        return None


def _metrics(record) -> dict[str, Metric]:
    words = _module(record, "words")
    own = words.metrics(record) if hasattr(words, "metrics") else getattr(words, "METRICS", {})
    return known_metrics(record, own)


def _seeds(record):
    seeds = record["seeds"]
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Mean {PLUS_MINUS} standard error over {len(seeds)} seeds ({seeds[0]} to {seeds[-1]})."


def _seed_table(record, name, metric) -> Table:
    """The value of every method at every seed."""
    rows = [
        (
            Cell(method),
            *(metric_cell(summary([value]), metric) for value in entries[name]["values"]),
        )
        for method, entries in record["results"].items()
        if name in entries
    ]
    label = metric.label + (f" ({metric.unit})" if metric.unit else "")
    return Table("", (label, *(f"seed {seed}" for seed in record["seeds"])), tuple(rows))


def _index_row(root, folder, record) -> tuple[Cell, ...]:
    # By its bytes: a name on disk need not be text.
    link = quote(os.fsencode((folder / PAGE).relative_to(root)))
    numbers = len(record["results"]), len(record["seeds"])
    commit = record["commit"] or "unknown"
    return (
        Cell(folder.relative_to(root).as_posix(), link=link),
        *map(Cell, (record["experiment"], record["preset"])),
        *(Cell(str(number), number) for number in numbers),
        Cell(record["device"]),
        Cell(commit[:10] + ("-dirty" if commit.endswith("-dirty") else "")),
    )


def _named(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")


def _write_page(path, told):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html.j2").render(told)
    write_file(path, lambda file: file.write(text.encode(errors="replace")))
