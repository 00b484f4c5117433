# SPDX-License-Identifier: Apache-2.0
"""The site builds without a warning, needs no network to be read, and its code runs."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

import plprune
from plprune.records import read_record

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAPERS = ("pl_pruning", "pl_star", "matrix_sensing", "alpha_beta")


class Page(HTMLParser):
    """Anchors of a page, what it loads, where it leads, and its images' descriptions."""

    def __init__(self, text):
        super().__init__()
        self.anchors, self.loaded, self.links, self.images = set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.anchors.add(found.get("id"))
        if tag == "a":
            self.links.append(found.get("href", ""))
        elif tag != "base":
            self.loaded += [found[name] for name in ("src", "href") if found.get(name)]
        if tag == "img":
            self.images.append(found.get("alt", ""))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    found = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in found.items()}


def test_no_page_loads_anything_from_elsewhere(pages):
    for name, page in pages.items():
        assert not [address for address in page.loaded if re.match(r"(\w+:)?//", address)], name


def test_every_public_name_is_in_the_reference(pages):
    anchors = {anchor for name, page in pages.items() if "api/" in name for anchor in page.anchors}
    for name in plprune.__all__:
        pattern = rf"plprune\.{plprune._HOME[name]}\.([a-z_]+\.)?{name}"
        assert any(re.fullmatch(pattern, anchor) for anchor in anchors - {None}), name


def test_every_formula_is_mathematics(site, pages):
    sources = {path.relative_to(DOCS).with_suffix(".html").as_posix(): path
               for path in DOCS.rglob("*.md")}  # fmt: skip
    assert set(sources) <= set(pages)
    for name, source in sources.items():
        text = (site / name).read_text(encoding="utf-8")
        assert "arithmatex" not in text, name
        if "$" in re.sub(r"`[^`]*`", "", source.read_text(encoding="utf-8")):
            assert "<math" in text, name


@pytest.mark.parametrize("paper", PAPERS)
def test_every_paper_has_a_page_with_a_figure_its_command_and_the_mathematics(pages, paper):
    page, source = pages[f"papers/{paper}.html"], (DOCS / "papers" / f"{paper}.md").read_text()
    assert page.images
    assert all(page.images)
    assert f"python -m experiments {paper}" in source
    assert "Seeds " in source or "quick" in source
    assert any("mathematics/" in link for link in page.links)


@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_a_phone_by_day_and_by_night(site, tmp_path, dark):
    browser = Browser(tmp_path)  # A new one each time: the site remembers a reader's choice.
    try:
        for name in ("index", "sharp_bits", "which_function", "papers/alpha_beta", "api/train",
                     "mathematics/pl_star"):  # fmt: skip
            browser.show((site / f"{name}.html").as_uri(), width=360, dark=dark)
            assert not browser.complaints, name
            assert browser.ask("document.documentElement.scrollWidth") <= 360, name
            assert not browser.ask("[...document.images].filter(i => !i.naturalWidth).length")
            scheme = browser.ask("document.body.dataset.mdColorScheme")
            assert scheme == ("slate" if dark else "default"), name
    finally:
        browser.close()


@pytest.mark.usefixtures("models_broadcast")
def test_code_blocks_run_page_by_page(capsys):
    found = {path: re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
             for path in sorted(DOCS.rglob("*.md"))}  # fmt: skip
    assert sum(map(len, found.values())) >= 9
    for path, blocks in found.items():
        names: dict = {}
        for block in blocks:
            exec(compile(block, str(path), "exec"), names)
    assert "residual stream" in capsys.readouterr().out  # What extending.md prints.


def rounded(entry, digits, factor=1.0):
    """Mean and standard error as a table of the docs has them."""
    if None in (entry["values"] or [None]):
        return "not reached"
    mean, error = factor * entry["mean"], factor * entry["stderr"]
    return f"{mean:,.{digits}f} ± {error:,.{digits}f}" if error else f"{mean:,.{digits}f}"


def test_the_tables_of_the_digits_are_those_of_the_record_that_ships():
    results = read_record(DOCS / "records" / "pl_pruning" / "digits")[0]["results"]
    text = (DOCS / "does_it_pay.md").read_text(encoding="utf-8")
    for name, found in results.items():
        row = [
            name.partition("/")[2], rounded(found["steps_to_target"], 0),
            rounded(found["test_accuracy"], 2, 100), rounded(found["kappa"], 0),
            rounded(found["lipschitz_constant"], 1),
        ]  # fmt: skip
        assert f"| {' | '.join(row)} |" in text
    steps = rounded(results["gd/kappa"]["steps_to_target"], 0)
    assert f"kappa's nodes need {steps} steps" in (ROOT / "README.md").read_text(encoding="utf-8")
