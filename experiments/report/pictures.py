# SPDX-License-Identifier: Apache-2.0
"""The files of figures: each figure is laid out once, and drawn once for every format.

``figures/NAME.svg``, ``.pdf`` and ``.png`` are for papers and slides; their metadata hold title and
caption. A page shows the SVG file itself, and ``figure.png`` is an overview, composed of the PNG
files. So a page of several commands shows what theirs show, and draws nothing.
"""

import html
import logging
import re
import shutil
import textwrap
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from experiments.report.style import INK, tidy
from plprune.records import write_file

FOLDER, OVERVIEW = "figures", "figure.png"
DOTS = 160  # An inch of the PNG files.
_DUBLIN = "{http://purl.org/dc/elements/1.1/}"
_GAP, _LETTERS = 40, 22  # Pixels between the pictures of the overview, and of its caption's font.
_MOST_WHOLE = 3  # Pictures of an overview that are not halved.


class Picture(NamedTuple):
    """One figure's files."""

    name: str
    caption: str
    path: Path  # Of the SVG file; the others lie beside it.

    @property
    def svg(self) -> str:
        """An element for a page: as wide as it allows, `INK` in the text's own colour."""
        text = self.path.read_text(encoding="utf-8")
        text = text[text.index("<svg") :].replace(INK, "currentColor")
        text = re.sub(r"<(title|metadata)>.*?</\1>", "", text, flags=re.DOTALL)
        # As wide as the page allows, yet no letter larger or smaller than is read with ease.
        points = float(re.search(r'width="([\d.]+)pt"', text)[1])
        width = f'style="min-width: {0.75 * points:.0f}pt; max-width: {1.35 * points:.0f}pt"'
        text = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', width, text, count=1)
        label = html.escape(f"{self.name}: {self.caption}")
        return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def write_pictures(
    folder: Path,
    figures: Mapping[str, Figure],
    caption: str,
    findings: Mapping[str, str] | None = None,
) -> list[Picture]:
    """Draw the figures into files, which replace all that were there, and their overview.

    Args:
      folder: Of the run; it is made where it is missing.
      figures: By name; they are drawn inside of `experiments.report.style.style`.
      caption: Of all of them.
      findings: Name -> what the figure shows, where anything is said of it.
    """
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
    (folder / OVERVIEW).unlink(missing_ok=True)
    if not figures:
        return []
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # It finds the fonts' dates odd.
    (folder / FOLDER).mkdir(parents=True)
    drawn: list[Picture] = []
    for name, figure in figures.items():
        stem = re.sub(r"[^\w.-]+", "_", name)[:100]
        while any(picture.path.stem == stem for picture in drawn):
            stem += "_"
        told = _printable(f"{(findings or {}).get(name, '')} {caption}".strip())
        drawn.append(Picture(name, told, folder / FOLDER / f"{stem}.svg"))
        _draw(drawn[-1], figure)
    write_overview(folder, drawn, caption)
    return drawn


def read_pictures(folder: Path) -> list[Picture]:
    """The pictures that `write_pictures` left in `folder`, by the names of their files."""
    return [_read(path) for path in sorted((folder / FOLDER).glob("*.svg"))]


def write_overview(folder: Path, pictures: Sequence[Picture], caption: str) -> None:
    """Write ``figure.png``: the pictures in rows, as in a text, above the caption."""
    if not pictures:
        return
    images = [Image.open(picture.path.with_suffix(".png")).convert("RGB") for picture in pictures]
    if len(images) > _MOST_WHOLE:
        images = [image.reduce(2) for image in images]
    width = max(image.width for image in images)
    places, height = _in_rows(images, width)
    lines = textwrap.fill(_printable(caption), int(1.8 * width / _LETTERS))
    whole = Image.new(
        "RGB", (width, height + int(1.4 * _LETTERS * (lines.count("\n") + 2))), "white"
    )
    for image, place in zip(images, places, strict=True):
        whole.paste(image, place)
    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    ImageDraw.Draw(whole).multiline_text(
        (_GAP, height), lines, INK, ImageFont.truetype(str(font), _LETTERS)
    )
    write_file(folder / OVERVIEW, lambda file: whole.save(file, format="png"))


def _printable(text):
    """Control characters are no text of an SVG file, and no font has them."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _draw(picture, figure):
    tidy(figure)
    figure.draw_without_rendering()
    # What "tight" stands for, which costs a drawing for every file.
    extent = figure.get_tightbbox().padded(matplotlib.rcParams["savefig.pad_inches"])
    title, told = {"Title": picture.name}, picture.caption
    formats = {
        "svg": {"transparent": True, "metadata": title | {"Description": told, "Date": None}},
        "pdf": {"metadata": title | {"Subject": told, "CreationDate": None}},
        # To be read again at once: packing tightly would take longer than drawing.
        "png": {"metadata": title | {"Description": told}, "dpi": DOTS,
                "pil_kwargs": {"compress_level": 1}},
    }  # fmt: skip
    settings = {
        "svg.hashsalt": f"{picture.name}: {told}",  # Else figures of one page share names of parts.
        "figure.constrained_layout.use": False,  # With an engine, every file would be laid out.
    }
    with matplotlib.rc_context(settings):
        figure.set_layout_engine(None)
        for ending, options in formats.items():
            write_file(
                picture.path.with_suffix(f".{ending}"),
                lambda file, e=ending, o=options: figure.savefig(
                    file, format=e, bbox_inches=extent, **o
                ),
            )


def _read(path):
    root = ElementTree.parse(path).getroot()
    name, caption = (
        root.findtext(f".//{_DUBLIN}{part}") or "" for part in ("title", "description")
    )
    return Picture(name, caption, path)


def _in_rows(images: Iterable[Image.Image], width: int) -> tuple[list[tuple[int, int]], int]:
    """Where each image goes, row by row, and the height of all rows."""
    places, x, top, bottom = [], 0, 0, 0
    for image in images:
        if x + image.width > width:
            x, top = 0, bottom
        places.append((x, top))
        x, bottom = x + image.width + _GAP, max(bottom, top + image.height + _GAP)
    return places, bottom
