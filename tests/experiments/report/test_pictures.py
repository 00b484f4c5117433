# SPDX-License-Identifier: Apache-2.0
"""Files of figures: laid out once, drawn once a format, the same bytes, safe inside of a page."""

import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.report import style
from experiments.report.pictures import (
    FOLDER,
    Picture,
    read_pictures,
    write_overview,
    write_pictures,
)

CAPTION = "python -m experiments toy --out '<a> & \x1b[1m $b$' \udcff. Seeds 0 to 1."
TOLD = "python -m experiments toy --out '<a> & ?[1m $b$' ?. Seeds 0 to 1."


def drawn():
    figure, axes = style.new_figure(1, 2)
    style.draw_curve(axes[0, 0], [0, 1], [[1.0, 2.0], [3.0, 4.0]], color="k", label="mean")
    axes[0, 1].loglog([1, 10], [1, 10], color=style.INK)
    return figure


def write(folder, *names, **findings):
    with style.style():
        return write_pictures(folder, {name: drawn() for name in names}, CAPTION, findings)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two figures, whose names ask for the same file."""
    return write(tmp_path_factory.mktemp("run"), "gd/in time", "gd in time")


def test_every_figure_has_a_file_of_its_own_in_every_format(pictures):
    folder = pictures[0].path.parent
    stems = ["gd_in_time", "gd_in_time_"]
    assert [picture.path.stem for picture in pictures] == stems
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{stem}.{ending}" for stem in stems for ending in ("svg", "pdf", "png")
    )
    assert (folder / "gd_in_time.pdf").read_bytes()[:5] == b"%PDF-"
    assert [picture.name for picture in pictures] == ["gd/in time", "gd in time"]


def test_what_the_files_say_of_themselves_is_read_again(pictures):
    found = read_pictures(pictures[0].path.parents[1])
    assert found == pictures
    assert {picture.caption for picture in found} == {TOLD}
    with Image.open(pictures[0].path.with_suffix(".png")) as image:
        assert (image.text["Title"], image.text["Description"]) == ("gd/in time", TOLD)
    assert b"Seeds 0 to 1" in pictures[0].path.with_suffix(".pdf").read_bytes()
    assert read_pictures(pictures[0].path.parent) == []


def test_a_page_takes_the_svg_file_in_the_colour_of_its_own_text(pictures):
    text = pictures[0].svg
    root = ElementTree.fromstring(text)
    assert root.get("aria-label") == f"gd/in time: {TOLD}"
    assert root.get("width") is None
    assert "currentColor" in text
    assert style.INK not in text
    assert root.find("{http://www.w3.org/2000/svg}title") is None  # Browsers show it on top.
    assert style.INK in pictures[0].path.read_text()


def test_two_figures_of_one_page_share_no_clip_path(pictures):
    def clips(picture):
        found = ElementTree.fromstring(picture.svg).iter("{http://www.w3.org/2000/svg}clipPath")
        return {element.get("id") for element in found}

    first, second = map(clips, pictures)
    assert first
    assert not first & second


def test_a_figure_is_laid_out_once_and_drawn_once_for_every_format(tmp_path, monkeypatch):
    calls = Counter()
    for name in ("draw", "get_tightbbox"):
        function = getattr(Figure, name)

        def counted(figure, *rest, name=name, function=function, **options):
            calls[name] += 1
            return function(figure, *rest, **options)

        monkeypatch.setattr(Figure, name, counted)
    write(tmp_path, "x")
    assert calls == {"draw": 1 + 3, "get_tightbbox": 1}


def test_a_caption_opens_with_what_the_figure_shows(tmp_path):
    (picture,) = write(tmp_path, "x", x="It rises.", other="It falls.")
    assert picture.caption == f"It rises. {TOLD}"


def test_files_are_the_same_bytes_every_time_and_old_ones_go(pictures, tmp_path):
    write(tmp_path, "old")
    again = write(tmp_path, "gd/in time", "gd in time")
    folder = pictures[0].path.parents[1]
    for path in (*folder.glob("figures/*"), folder / "figure.png"):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name
    assert {path.name for path in (tmp_path / FOLDER).glob("*.svg")} == {
        picture.path.name for picture in again
    }


def test_the_overview_has_every_picture_at_one_scale_and_the_caption(tmp_path):
    path = tmp_path / FOLDER / "a.svg"
    path.parent.mkdir()
    Image.new("RGB", (300, 80), "red").save(path.with_suffix(".png"))

    def overview(count):
        write_overview(tmp_path, [Picture("a", "", path)] * count, "caption " * 20)
        with Image.open(tmp_path / "figure.png") as image:
            return np.asarray(image)

    for count, pixels in ((1, 300 * 80), (3, 3 * 300 * 80), (4, 300 * 80)):
        image = overview(count)
        assert ((image == (255, 0, 0)).all(-1)).sum() == pixels
        assert image[:, :, 2].min() < 100  # The caption's ink.
    assert image.shape[1] == 150  # Halved, one above the other.
    write_overview(tmp_path / "none", [], "")
    assert not (tmp_path / "none").exists()
