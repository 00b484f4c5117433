# SPDX-License-Identifier: Apache-2.0
"""What presets of several data sets share."""

from experiments.pl_pruning.methods import CONTROLS

UNKNOWN = "the paper's own settings are not public."

# Other widths and halved kernels have presets of their own; the rest are the controls of scale.
WIDTHS = ("random_tapered", "random_flared")
SMALL = ("kappa_small", "random_small", "magnitude_small")
CONTROLLED = (
    "dense", "kappa", "kappa_annealed", "kappa_global", "random", "magnitude",
    *(name for name in CONTROLS if name not in (*SMALL, *WIDTHS)),
)  # fmt: skip
