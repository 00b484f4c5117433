# SPDX-License-Identifier: Apache-2.0
"""The page: everything in one file, escaped, drawn from the record alone."""

import ast
import base64
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
from toy_records import write_toy

import experiments
from experiments import report
from experiments.__main__ import main
from experiments.report import style
from plprune.records import read_record, summarise

pytestmark = pytest.mark.usefixtures("toy")
EVIL = "<script>alert('x')</script>\"&"


@pytest.fixture
def drawing(toy):
    """Figures, which take longer than all of the rest of a page."""
    toy("figures", draw=toy.draw)


class Page(HTMLParser):
    """Tags left open, addresses, and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.open, self.addresses, self.seen, self.tags = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [v for k, v in attributes if k in ("href", "src", "xlink:href")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.seen.append(data)


def page(folder):
    return Page(report.write_report(folder).read_text())


@pytest.mark.usefixtures("drawing")
def test_the_page_is_self_contained_and_says_what_it_must(tmp_path):
    found = page(write_toy(tmp_path))
    assert found.open == []
    assert all(address.startswith(("#", "data:")) for address in found.addresses)
    text = " ".join("".join(found.seen).split())
    for part in (
        "A toy.",
        "python -m experiments toy --preset quick",
        "4.0 ± 1.0",
        "91.0 ± 1.0",
        "test accuracy (%)",
        "Mean ± standard error over 2 seeds (0 to 1).",
        "Small.",
        "jax 1",
    ):
        assert part in text
    assert text.index("python -m experiments") < text.index("Results")


@pytest.mark.usefixtures("drawing")
def test_everything_from_the_record_is_escaped(tmp_path):
    results = summarise({f"gd/{EVIL}": {EVIL: [1.0, 2.0]}})
    folder = write_toy(
        tmp_path, results=results, preset=EVIL, command=EVIL, device=EVIL, commit=EVIL,
        config={EVIL: EVIL, "scale": EVIL}, versions={EVIL: f"lossy {EVIL}"},
    )  # fmt: skip
    found = page(folder)
    assert found.open == []
    assert found.tags.count("script") == 1
    assert "alert" in "".join(found.seen)


def test_the_data_can_be_downloaded_from_the_page(tmp_path):
    links = [a for a in page(write_toy(tmp_path)).addresses if a.startswith("data:text/csv")]
    results, curves = (base64.b64decode(a.partition(",")[2]).decode() for a in links)
    assert "gd/a,kappa,4.0,1.0,3.0,5.0" in results.splitlines()
    assert "gd/b/train_loss,1,0,1.0" in curves.splitlines()


def test_every_seed_is_listed_and_a_null_says_what_is_missing(tmp_path):
    results = summarise({"a": {"steps_to_target": [7, None], "test_accuracy": [0.125, 0.5]}})
    seen = [text.strip() for text in page(write_toy(tmp_path, results=results)).seen]
    for part in ("7", "not reached", "not reached on 1 of 2 seeds", "12.50", "50"):
        assert part in seen


@pytest.mark.usefixtures("drawing")
def test_drawing_again_gives_the_same_files(tmp_path):
    pages = [report.write_report(write_toy(tmp_path)).read_bytes() for _ in range(2)]
    assert pages[0] == pages[1]


def test_an_experiment_brings_its_own_words_and_tables(toy, tmp_path):
    from experiments.report.tables import Cell, Metric, Table

    toy(
        "words",
        METRICS={"kappa": Metric("spread", "Ours.")},
        measured=lambda _: ["A paragraph of ours."],
        tables=lambda _: [Table("widths", ("w", "x"), ((Cell("1"), Cell("2", 2.0)),))],
    )
    text = "".join(page(write_toy(tmp_path)).seen)
    for part in ("A paragraph of ours.", "spread", "Ours.", "widths"):
        assert part in text


@pytest.mark.usefixtures("drawing")
def test_what_a_figure_shows_stands_in_its_caption_and_words_are_read_from_the_left(toy, tmp_path):
    from experiments.report.tables import Cell, Table

    rows = ((Cell("1"), Cell("not shown"), Cell("2", 2.0)),)
    toy("words", findings=lambda _: {"loss": "It rises."},
        tables=lambda _: [Table("", ("w", "verdict", "x"), rows)])  # fmt: skip
    folder = write_toy(tmp_path)
    seen = " ".join(" ".join(page(folder).seen).split())
    assert "loss. It rises. python -m experiments toy" in seen
    text = (folder / "report.html").read_text()
    assert '<td class="read">not shown</td><td data-value="2.0">2</td>' in text


def test_an_experiment_without_figures_still_has_a_page(toy, tmp_path):
    toy("figures", draw=lambda *_: {})
    assert "Figures" not in "".join(page(write_toy(tmp_path)).seen)


@pytest.mark.usefixtures("drawing")
def test_report_of_a_folder_of_runs_writes_them_all_and_an_index(tmp_path, capsys):
    for name in ("a b", "c/d"):
        write_toy(tmp_path / name)
    assert main(["report", str(tmp_path)]) == 0
    index = Page((tmp_path / "index.html").read_text())
    assert {"a%20b/report.html", "c/d/report.html"} <= set(index.addresses)
    assert (tmp_path / "a b" / "figures" / "loss.pdf").exists()
    assert main(["report", str(tmp_path / "a b" / "record.json")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("report.html")


def all_of_two_figures(toy, tmp_path, draw):
    """A run of both, and for every drawing the figure whose record it was."""
    drawn = []

    def counted(record, curves):
        drawn.append(record["config"]["figure"])
        return draw(record, curves)

    toy("config", FIGURES=("width", "rate"))
    toy("run", run=toy.run_figure)
    toy("figures", draw=counted)
    return main(["toy", "--out", str(tmp_path), "--quiet"]), drawn


def test_the_page_of_several_figures_shows_theirs_and_draws_nothing_again(toy, tmp_path):
    code, drawn = all_of_two_figures(toy, tmp_path, toy.draw)
    assert (code, drawn) == (0, ["width", "rate"])
    text = (tmp_path / "report.html").read_text()
    assert re.findall(r'aria-label="loss: python -m experiments toy (\w+) ', text) == drawn
    assert "<code>width/figures/</code>, <code>rate/figures/</code>" in text
    assert not (tmp_path / "figures").exists()
    one, every = ((tmp_path / name / "figure.png").stat().st_size for name in ("rate", "."))
    assert every > 1.5 * one
    assert [path.parent.name for path in report.write_reports(tmp_path)[:2]] == drawn[:2]
    assert drawn == ["width", "rate"] * 2  # Drawn again: that was asked for.
    assert (tmp_path / "report.html").read_text() == text
    shutil.rmtree(tmp_path / "rate")
    report.write_report(tmp_path)
    assert drawn[4:] == ["all"]


def test_a_figure_that_cannot_be_drawn_in_the_background_is_named_in_the_end(toy, tmp_path, capsys):
    def draw(record, _):
        return {}["gone"] if record["config"]["figure"] == "width" else {}

    code, drawn = all_of_two_figures(toy, tmp_path, draw)
    assert (code, drawn) == (2, ["width", "rate", "width"])
    assert "width/record.json cannot be drawn" in capsys.readouterr().err
    toy("figures", draw=toy.draw)
    assert main(["toy", "--out", str(tmp_path), "--quiet", "--resume"]) == 0
    assert (tmp_path / "report.html").exists()


def test_the_index_shows_what_is_drawn_of_several_runs_together(toy, tmp_path):
    drawn = []

    def pooled(runs):
        figure, axes = style.new_figure()
        drawn.append([len(runs), sum(len(curves) for _, curves in runs)])
        axes[0, 0].plot(drawn[-1])
        return {"both": figure}

    toy("figures", pooled=pooled)
    for name in "ab":
        write_toy(tmp_path / name, command=f"run {name}")
    assert report.write_reports(tmp_path)[-1] == tmp_path / "index.html"
    index = Page((tmp_path / "index.html").read_text())
    told = " ".join("".join(index.seen).split())
    assert "both. run a; run b. Small." in told
    assert drawn == [[2, 4]]
    assert (tmp_path / "figure.png").exists()
    assert index.open == []


def test_what_metrics_mean_may_depend_on_the_record(toy, tmp_path):
    from experiments.report.tables import Metric

    def metrics(record):
        return {"kappa": Metric("spread", f"Of {record['config']['outputs']} outputs.")}

    toy("words", metrics=metrics)
    seen = page(write_toy(tmp_path, config={"scale": "", "outputs": 3})).seen
    assert "Of 3 outputs." in seen


def test_a_record_of_an_unknown_experiment_is_refused(tmp_path, capsys):
    write_toy(tmp_path, experiment="os.path")
    assert main(["report", str(tmp_path)]) == 2
    assert "unknown experiment, 'os.path'" in capsys.readouterr().err


def test_one_bad_run_among_many_is_named_and_does_not_hide_the_others(toy, tmp_path, capsys):
    for name in ("good", "damaged", "foreign"):
        write_toy(tmp_path / name)
    (tmp_path / "damaged" / "record.json").write_text("{")
    toy("figures", draw=lambda record, _: record["results"]["gd/a"] and {}["gone"])
    write_toy(tmp_path / "good", results=summarise({"gd/a": {}}))
    assert main(["report", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    index = Page((tmp_path / "index.html").read_text())
    text = "".join(index.seen)
    assert "good/report.html" in index.addresses
    assert "damaged/report.html" not in index.addresses
    for part in ("damaged/record.json is damaged", "foreign/record.json cannot be drawn"):
        assert part in told
        assert part in text


@pytest.mark.parametrize("name", ["record.json", "metrics.npz"])
def test_a_damaged_record_is_refused_by_name(tmp_path, capsys, name):
    (write_toy(tmp_path) / name).write_bytes(b"{")
    assert main(["report", str(tmp_path)]) == 2
    assert name in capsys.readouterr().err


def test_the_terminal_shows_every_method_whatever_the_width(tmp_path):
    from rich.console import Console

    folder = write_toy(tmp_path, results=summarise({f"m{i}": {"kappa": [1, 2]} for i in range(9)}))
    for width in (40, 200):
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        report.show(read_record(folder)[0], console)
        shown = console.export_text()
        console.file.close()
        assert all(re.search(rf"\bm{i}\b", shown) for i in range(9))
        assert max(map(len, shown.splitlines()[:-1])) <= width


def test_the_config_is_shown_as_json(tmp_path):
    assert "[1, null, 0.5]" in "".join(page(write_toy(tmp_path, config={"a": [1, None, 0.5]})).seen)


def test_arrays_that_cannot_be_drawn_stop_no_index(toy, tmp_path, capsys):
    def draw(record, curves):
        if record["command"] != "sound":
            np.stack([curves["gd/a/train_loss"], np.zeros(record["config"]["zero"])])  # ValueError.
        return {}

    def pooled(runs):
        raise ZeroDivisionError(f"{len(runs)} runs")

    toy("figures", draw=draw, pooled=pooled)
    write_toy(tmp_path / "b & #1 %41 \udcff", command="sound")
    write_toy(tmp_path / "odd", config={"zero": 0})
    write_toy(tmp_path / "pipe", command="sound")
    (tmp_path / "pipe" / "metrics.npz").unlink()
    os.mkfifo(tmp_path / "pipe" / "metrics.npz")
    assert main(["report", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    index = Page((tmp_path / "index.html").read_text())
    told = "".join(index.seen)
    for part in ("odd/record.json cannot be drawn", "pipe/metrics.npz is damaged", "1 runs"):
        assert part in line
        assert part in told
    (link,) = [address for address in index.addresses if address.endswith("report.html")]
    assert Path(os.fsdecode(unquote_to_bytes(link))).parent.name.startswith("b & #1 %41 ")
    assert (tmp_path / os.fsdecode(unquote_to_bytes(link))).exists()


READERS = ("words", "trends", "figures")
LIGHT = ("config", "settings", "methods", *READERS)


@pytest.mark.parametrize("path", experiments.EXPERIMENTS.values())
def test_what_reads_records_imports_nothing_that_runs(path):
    """The report needs no model, no training and no state of a run."""
    root = Path(experiments.__file__).parents[1]
    folder = root / path.replace(".", "/")
    for name in READERS:
        for file in (*folder.glob(f"{name}.py"), *folder.glob(f"{name}/*.py")):
            imported = [
                node.module
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.ImportFrom) and node.module.startswith("experiments.")
            ]
            allowed = ["experiments.report", *(f"{path}.{part}" for part in LIGHT)]
            for module in imported:
                assert any(f"{module}.".startswith(f"{part}.") for part in allowed), file
