# SPDX-License-Identifier: Apache-2.0
"""Networks: which nodes are kept, and how wide each group is before and after."""

from typing import Any

import numpy as np

from plprune.nodes.checks import concrete_keep
from plprune.pictures.look import BLUE, INK, SKY, new_figure, style
from plprune.types import Keep, NodeGroups

_ROW, _MARGIN = 0.2, 0.7  # Inches.
_LONGEST = 28  # Letters of a name.


def kept_nodes(groups: NodeGroups, keep: Keep) -> Any:
    """Which nodes of each group are kept: one strip per group, from its first node to its last.

    Args:
      groups: From `find_nodes`.
      keep: Group name -> [g] booleans, concrete.

    Returns:
      A matplotlib Figure; a strip is as long for every group, so that cells differ in width.

    Raises:
      ValueError: unknown names, masks of another length, or no group at all.
      MissingExtraError: matplotlib is not installed.
    """
    masks = _masks(groups, keep)
    with style():
        figure, ((axes,),) = new_figure(height=_MARGIN + _ROW * len(masks))
        for row, kept in enumerate(masks.values()):
            edges = np.linspace(0, 1, len(kept) + 1)
            extent = (0, 1, row + 0.4, row - 0.4)
            shades = np.where(kept[None, :, None], _rgb(BLUE), _rgb("#e4e4e4"))
            axes.imshow(shades, extent=extent, aspect="auto", interpolation="nearest")
            if len(kept) <= 64:
                axes.vlines(edges[1:-1], row - 0.4, row + 0.4, color="white", linewidth=0.4)
        _label_rows(axes, masks)
        axes.set_xlim(0, 1)
        for label, side in zip(
            axes.set_xticks([0, 1], ["first node", "last"]), ("left", "right"), strict=True
        ):
            label.label1.set_horizontalalignment(side)
        axes.grid(visible=False)
        axes.set_title(_total(masks))
    return figure


def network_sizes(groups: NodeGroups, keep: Keep) -> Any:
    """The number of nodes of each group before and after, as bars.

    Arguments, errors and return value are those of `kept_nodes`.
    """
    masks = _masks(groups, keep)
    with style():
        figure, ((axes,),) = new_figure(height=_MARGIN + _ROW * len(masks))
        rows = np.arange(len(masks))
        before = np.array([len(kept) for kept in masks.values()])
        after = np.array([kept.sum() for kept in masks.values()])
        axes.barh(rows, before, color=SKY, alpha=0.35, height=0.7)
        axes.barh(rows, after, color=BLUE, height=0.7)
        for row, (small, full) in enumerate(zip(after, before, strict=True)):
            axes.text(full, row, f" {small:,} of {full:,}", va="center", fontsize=7, color=INK)
        _label_rows(axes, masks)
        axes.set_xlim(0, 1.35 * before.max())
        axes.set_xlabel("nodes")
        axes.set_title(_total(masks))
    return figure


def _masks(groups, keep):
    masks = {name: np.asarray(kept) for name, kept in concrete_keep(keep, groups).items()}
    if not masks:
        raise ValueError("keep must name at least one group, got none.")
    return masks


def _label_rows(axes, masks):
    names = [name if len(name) <= _LONGEST else f"...{name[3 - _LONGEST :]}" for name in masks]
    axes.set_yticks(range(len(masks)), names)
    axes.set_ylim(len(masks) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)


def _total(masks):
    kept, full = (sum(f(m) for m in masks.values()) for f in (np.sum, len))
    return f"{kept:,} of {full:,} nodes are kept"


def _rgb(colour):
    return [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
