# SPDX-License-Identifier: Apache-2.0
"""The pages in a real browser: no complaint, nothing missing, readable on a phone and at night."""

import pytest
from browser import CHROMIUM, Browser
from toy_records import write_toy

from experiments.__main__ import main
from plprune.records import summarise

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
WORD = "d7d05618061fe37d830fb0419063d113c575ccbc-" * 3
FIRST = "document.querySelector('table.sortable')"
NAMES = f"[...{FIRST}.querySelectorAll('tbody th')].map(h => h.textContent).join()"
BROKEN = "[...document.images].filter(i => !i.naturalWidth).length"
CONTRAST = """(() => {
  const light = color => {
    const part = color.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255)
      .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * part[0] + .7152 * part[1] + .0722 * part[2];
  };
  const back = light(getComputedStyle(document.body).backgroundColor);
  return Math.min(...[...document.querySelectorAll("p, th, td, a, figcaption, svg")].map(e => {
    const [a, b] = [light(getComputedStyle(e).color), back].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  }));
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def pages(toy, tmp_path):
    """The index over two runs, one of them with every kind of text that could be too wide."""
    toy("figures", draw=toy.draw)
    results = {m: {"kappa": [k, k], "a_metric_without_a_label": [k, k]}
               for m, k in (("b", 2.0), ("a", 10.0), ("c", 1.0))}  # fmt: skip
    write_toy(tmp_path / "z/run", results=summarise(results))
    wide = {"kappa": [1e-9, 3e-9], WORD: [1, None]} | {f"metric_{i}": [1, 2] for i in range(20)}
    write_toy(
        tmp_path / f"a/{WORD}", preset=WORD, command=f"python -m experiments toy --out {WORD}",
        config={WORD: WORD, "scale": WORD}, versions={"cifar10": f"lossy, {WORD}"}, commit=WORD,
        device=WORD, results=summarise({"regime/one": wide, f"regime/{WORD}": wide}),
    )  # fmt: skip
    assert main(["report", str(tmp_path)]) == 0
    return {
        "index": tmp_path / "index.html",
        "run": tmp_path / "z/run/report.html",
        "wide": tmp_path / f"a/{WORD}/report.html",
    }


def test_pages_fit_a_phone_and_can_be_read_by_day_and_by_night(browser, pages):
    for name, path in pages.items():
        for width, dark in ((360, False), (360, True), (1200, True)):
            browser.show(path.as_uri(), width=width, dark=dark)
            assert not browser.complaints, name
            assert browser.ask(BROKEN) == 0, name
            assert browser.ask("document.documentElement.scrollWidth") <= width, name
            assert browser.ask("getComputedStyle(document.body).fontSize") == "16px"
            assert browser.ask(CONTRAST) > 4.5, name  # What WCAG asks of text.
            night = "rgb(22, 24, 27)" if dark else "rgb(253, 253, 252)"
            assert browser.ask("getComputedStyle(document.body).backgroundColor") == night


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(browser, pages):
    browser.show(pages["run"].as_uri(), width=1200)
    click = "document.querySelectorAll('.sortable th button')[{}].click(), " + NAMES
    assert browser.ask(click.format(1)) == "c,b,a"
    assert browser.ask(click.format(1)) == "a,b,c"
    assert browser.ask(click.format(0)) == "a,b,c"
    assert browser.ask("document.querySelector('th[aria-sort]').ariaSort") == "ascending"
    browser.show(pages["index"].as_uri(), width=1200)
    first = browser.ask(click.format(2)).split(",")  # A column of words: the presets.
    assert first == [f"a/{WORD}", "z/run"]
    assert browser.ask(click.format(2)).split(",") == first[::-1]


def test_the_data_of_a_page_are_links_that_a_browser_downloads(browser, pages):
    browser.show(pages["run"].as_uri(), width=360)
    names = "[...document.querySelectorAll('a[download]')].map(a => a.download).join()"
    assert browser.ask(names) == "results.csv,curves.csv"
    text = "atob(document.querySelector('a[download=\"results.csv\"]').href.split(',')[1])"
    assert browser.ask(text).startswith("method,metric,mean,stderr,seed 0,seed 1")
    assert browser.ask("document.querySelector('.copied button').textContent") == "Copy"
