# SPDX-License-Identifier: Apache-2.0
"""Tables, figures and a self-contained page, all from the record alone."""

import base64
import csv
import io
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

import experiments
from experiments import figures as looks
from experiments.cli import about
from experiments.figure_data import COLUMNS, drawn_rows
from experiments.tables import (
    PLUS_MINUS,
    Metric,
    Table,
    known_metrics,
    metric_cell,
    metric_tables,
)
from plprune.records import RECORD, Record, read_record, summary, write_file

MOST_CSV_BYTES = 400_000  # Longer ones stay in metrics.npz: the page is for a phone too.


def write_reports(path: str | Path) -> list[Path]:
    """Draw the run in `path` again, or every run below it with an index of them all.

    What an experiment draws of several of its runs together stands in the index, and beside it as
    ``figure.png`` and ``figure.pdf``.

    Returns:
      The pages that were written.

    Raises:
      ValueError: where there is no record, or one that is damaged. Of many, every sound one is
        drawn and the index says what is wrong with the others, before they are named here.
    """
    path = Path(path)
    path = path.parent if path.name == RECORD else path
    if (path / RECORD).is_file():
        return [write_report(path)]
    folders = sorted(found.parent for found in path.rglob(RECORD))
    if not folders:
        raise ValueError(f"there is no {RECORD} in {path} or below it.")
    pages, runs, sound, faults = [], [], [], {}
    for folder in folders:
        try:
            page, row = write_report(folder), _index_row(path, folder)
        except (ValueError, OSError) as error:
            faults[folder.relative_to(path).as_posix()] = str(error)
        else:
            pages, runs, sound = [*pages, page], [*runs, row], [*sound, folder]
    index = path / "index.html"
    pictures, caption = {}, ""
    try:
        pictures, caption = _draw_pooled(path, sound)
    except Exception as error:
        faults["runs together"] = f"Together they cannot be drawn: {_named(error)}."
    page = _template("index.html.j2")
    _write_text(index, page.render(runs=runs, faults=faults, pictures=pictures, caption=caption))
    if faults:
        raise ValueError(" ".join([*faults.values(), f"{index} has the other {len(runs)} runs."]))
    return [*pages, index]


def write_report(folder: Path) -> Path:
    """Write the figures and ``report.html`` of the record in `folder`; the page's path.

    Raises:
      ValueError: where the record is missing, damaged, or not one that its experiment can draw.
    """
    record, curves = read_record(folder)
    try:
        return _write_report(folder, record, curves)
    except OSError:  # Of the disk, not of the record.
        raise
    except Exception as error:
        raise ValueError(
            f"{folder / RECORD} cannot be drawn, as if another version had written it: "
            f"{_named(error)}."
        ) from error


def _write_report(folder, record, curves):
    module = _figures_module(record)
    caption = looks.caption(record)
    with looks.style():
        drawn = module.draw(record, curves) if module else {}
        pictures = _pictures(folder, drawn, caption)
    page = _template("report.html.j2").render(
        record=record,
        about=about(record["experiment"]),
        summary=_summary(record),
        caption=caption,
        pictures=pictures,
        tables=tables(record),
        seed_tables=_seed_tables(record, _metrics(record)),
        metrics=_metrics(record),
        measured=module.measured(record) if hasattr(module, "measured") else [],
        lossy=looks.lossy(record),
        table_csv=_csv_link(_result_rows(record)),
        curves_csv=_curves_link(curves),
    )
    _write_text(folder / "report.html", page)
    return folder / "report.html"


def _pictures(folder, drawn, caption) -> dict[str, tuple[str, str | None]]:
    """Name -> (SVG, link to its points) of figures that are saved in `folder`."""
    for figure in drawn.values():
        looks.tidy(figure)
    pictures = {
        name: (looks.svg(name, figure, _attribute(f"{name}: {caption}")), _drawn_link(figure))
        for name, figure in drawn.items()
    }
    if drawn:
        looks.save(folder, drawn, caption)
    return pictures


def _draw_pooled(root, folders):
    """Pictures of several runs together, by each experiment's `pooled`, and a caption."""
    groups: dict[ModuleType, list] = {}
    for folder in folders:
        record, curves = read_record(folder)
        module = _figures_module(record)
        if module is not None and hasattr(module, "pooled"):
            groups.setdefault(module, []).append((record, curves))
    with looks.style():
        drawn = {k: v for module, runs in groups.items() for k, v in module.pooled(runs).items()}
        caption = looks.pooled_caption([run[0] for runs in groups.values() for run in runs])
        return _pictures(root, drawn, caption), caption


def is_drawn(folder: Path) -> bool:
    """Whether the page is there, which is written after the figures."""
    return (folder / "report.html").exists()


def tables(record: Record) -> list[Table]:
    """The tables of a record: the experiment's own, or one per regime."""
    module = _figures_module(record)
    if hasattr(module, "tables"):
        return list(module.tables(record))
    return metric_tables(record, _metrics(record))


def show(record: Record, console: Console) -> None:
    """Print the tables: a row per metric and a column per method, as the width allows."""
    for table in tables(record):
        for rows in _blocks(table, console.width):
            printed = RichTable(box=box.SIMPLE_HEAD, title=Text(table.title) or None)
            printed.add_column("")
            for row in rows:
                printed.add_column(Text(row[0].text), justify="right")
            for i, column in enumerate(table.columns[1:], 1):
                if any(row[i].text for row in rows):
                    printed.add_row(Text(column), *(Text(row[i].text) for row in rows))
            console.print(printed)
    seeds = len(record["seeds"])
    for line in (_summary(record), *looks.lossy(record)):
        console.print(Text(line), soft_wrap=True)
    if seeds == 1:
        console.print("One seed: no standard errors.", highlight=False)


def _blocks(table, width):
    """The rows of a table in groups that stand side by side within `width`."""
    names = max(len(column) for column in table.columns) + 4
    room, blocks = 0, []
    for row in table.rows:
        needed = max(len(cell.text) for cell in row) + 2
        if needed > room:
            blocks.append([])
            room = width - names
        blocks[-1].append(row)
        room -= needed
    return blocks


def _named(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")


def _summary(record):
    seeds = record["seeds"]
    if len(seeds) == 1:
        return f"Seed {seeds[0]}."
    return f"Mean {PLUS_MINUS} standard error over {len(seeds)} seeds ({seeds[0]} to {seeds[-1]})."


def _figures_module(record: Record) -> ModuleType | None:
    """The module `figures` of the record's experiment, None where it has none.

    The name is looked up among ours: a record cannot choose what is imported.
    """
    path = experiments.EXPERIMENTS.get(record["experiment"])
    if path is None:
        raise ValueError(
            f"the record is of an unknown experiment, {record['experiment']!r}; "
            f"known are {', '.join(experiments.EXPERIMENTS)}."
        )
    try:
        return import_module(f"{path}.figures")
    except ModuleNotFoundError as error:
        if error.name not in (path, f"{path}.figures"):
            raise
        return None


def _metrics(record) -> dict[str, Metric]:
    module = _figures_module(record)
    own = module.metrics(record) if hasattr(module, "metrics") else getattr(module, "METRICS", {})
    return known_metrics(record, own)


def _seed_tables(record, metrics):
    """Per metric, the value of every method at every seed."""
    found = []
    for name, metric in metrics.items():
        rows = [
            (method, [metric_cell(summary([v]), metric).text for v in entries[name]["values"]])
            for method, entries in record["results"].items()
            if name in entries
        ]
        found.append((metric.label + (f" ({metric.unit})" if metric.unit else ""), rows))
    return found


def _index_row(root, folder) -> dict[str, Any]:
    record, _ = read_record(folder)
    return {
        # By its bytes: a name on disk need not be text.
        "link": quote(os.fsencode((folder / "report.html").relative_to(root))),
        "folder": folder.relative_to(root).as_posix(),
        "record": record,
        "methods": len(record["results"]),
    }


def _result_rows(record):
    yield ["method", "metric", "mean", "stderr", *(f"seed {seed}" for seed in record["seeds"])]
    for method, entries in record["results"].items():
        for metric, entry in entries.items():
            yield [method, metric, entry["mean"], entry["stderr"], *entry["values"]]


def _curves_link(curves: Mapping[str, np.ndarray]) -> str | None:
    if not curves or 24 * sum(array.size for array in curves.values()) > MOST_CSV_BYTES:
        return None
    rows = [["curve", "seed number", "position", "value"]]
    for key, array in curves.items():
        for index, value in np.ndenumerate(array):
            rows.append([key, index[0], " ".join(map(str, index[1:])), value])
    return _csv_link(rows)


def _drawn_link(figure) -> str | None:
    link = _csv_link([COLUMNS, *drawn_rows(figure)])
    return link if len(link) < MOST_CSV_BYTES else None


def _csv_link(rows) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return "data:text/csv;base64," + base64.b64encode(text.getvalue().encode()).decode()


def _attribute(text):
    return str(jinja2.filters.escape(text))


def _template(name):
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name)


def _write_text(path, text):
    write_file(path, lambda file: file.write(text.encode(errors="replace")))
