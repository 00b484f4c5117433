# SPDX-License-Identifier: Apache-2.0
"""The cells of the map: what each is, and the parts in which they are run."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Loss = Literal["square", "cross_entropy"]
Optimizer = Literal["gd", "sgd", "momentum", "adam", "adamw", "lbfgs"]
Kind = Literal["none", "layernorm", "batchnorm", "residual", "centred"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
KINDS: tuple[Kind, ...] = get_args(Kind)
FULL = 0  # As a batch: all training examples.
_DEPTH = 4  # Of the map's centre.
_PENALTIES = (1e-4, 1e-3)  # Times log kappa.

# Each part is a command with a record of its own, the most telling first.
PARTS = (
    "square_4", "square_8", "square_2", "cross_entropy_4", "kinds", "batches", "cross_entropy_8",
    "cross_entropy_2", "fashion", "targets", "warm_up", "kinds_cross_entropy", "square_16",
    "cross_entropy_16", "penalties",
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One point of the map."""

    loss: Loss
    optimizer: Optimizer
    depth: int = _DEPTH  # Hidden layers, or blocks of a residual network.
    kind: Kind = "none"  # Normalisation, or skip connections.
    batch: int = FULL
    target: float = 1.0  # Of the training loss.
    dataset: str = "digits"
    warm_up: int = 0  # Steps in which the rate rises.
    penalty: float = 0.0  # Times log kappa of the weights, added to the loss.

    @property
    def name(self) -> str:
        """All of it in words, which `cell_named` reads."""
        batch = f"batch {self.batch}" if self.batch else "full batch"
        parts = [self.dataset, self.loss, self.optimizer, f"depth {self.depth}", self.kind, batch]
        parts.append(f"target {self.target:g}")
        parts += [f"warm-up {self.warm_up}"] if self.warm_up else []
        return ", ".join(parts + ([f"penalty {self.penalty:g}"] if self.penalty else []))


def cell_named(name: str) -> Cell:
    """The cell of a name; ValueError for one that no cell has."""
    try:
        dataset, loss, optimizer, depth, kind, batch, target, *rest = name.split(", ")
        numbers = {"depth": depth, "batch": batch.replace("full batch", "batch 0")}
        whole = {key: int(text.split()[1]) for key, text in numbers.items()}
        goal = float(target.split()[1])
        extra = dict(text.split() for text in rest)
    except (ValueError, IndexError):
        raise ValueError(f"no cell is called {name!r}.") from None
    named: dict[str, Any] = {"loss": loss, "optimizer": optimizer, "kind": kind, **whole}
    named |= {"warm_up": int(extra.get("warm-up", 0)), "penalty": float(extra.get("penalty", 0))}
    return Cell(**named, target=goal, dataset=dataset)


def cells_of(part: str, config: Any) -> list[Cell]:
    """The cells of a part, those that share a choice of nodes side by side.

    Losses times optimisers times depths is eight parts; every other part varies one factor around
    the centre, which is four plain layers and full batches.
    """
    goals = {"square": config.square_target, "cross_entropy": config.cross_entropy_target}
    slow = {"gd": config.gd_factor}
    cells = [
        replace(cell, target=cell.target * goals[cell.loss] * slow.get(cell.optimizer, 1.0))
        for cell in _cells(part, config)
    ]
    return [cell for cell in cells if cell.depth in config.depths]


def _cells(part, config) -> Iterator[Cell]:
    loss, _, depth = part.rpartition("_")
    if depth.isdecimal():
        yield from (Cell(loss, optimizer, int(depth)) for optimizer in config.optimizers)
        return
    for loss in _LOSSES[part]:
        for change in _changes(part, config):
            yield from (Cell(loss, optimizer, **change) for optimizer in config.around)


_LOSSES: dict[str, tuple[Loss, ...]] = {
    "kinds": ("square",), "kinds_cross_entropy": ("cross_entropy",),
    "batches": ("square", "cross_entropy"), "fashion": ("square", "cross_entropy"),
    "targets": ("square", "cross_entropy"), "warm_up": ("square", "cross_entropy"),
    "penalties": ("square", "cross_entropy"),
}  # fmt: skip


def _changes(part, config) -> list[dict[str, Any]]:
    if part == "batches":
        return [{"batch": size} for size in config.batches]
    if part == "targets":
        return [{"target": factor} for factor in config.target_factors]
    if part == "fashion":
        return [{"dataset": "fashion_mnist"}] if config.fashion_examples else []
    if part == "penalties":
        return [{"penalty": weight} for weight in _PENALTIES]
    if part == "warm_up":
        return [{"warm_up": steps} for steps in config.warm_ups]
    deep = [{"kind": "centred", "depth": depth} for depth in config.depths if depth != _DEPTH]
    return [{"kind": kind} for kind in config.kinds] + (deep if "centred" in config.kinds else [])
