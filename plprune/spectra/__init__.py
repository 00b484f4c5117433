# SPDX-License-Identifier: Apache-2.0
"""Extreme eigenvalues with error bounds, their gradients, traces and spectral densities."""

from plprune.spectra.dense import ExtremePairs, extreme_eigenpairs
from plprune.spectra.density import ProbeMean, SpectralMeasure, density, spectral_measure, trace
from plprune.spectra.gradients import extreme_eigenvalues, smallest_mean
from plprune.spectra.lanczos import RitzEnds, ritz_ends

__all__ = [
    "ExtremePairs",
    "ProbeMean",
    "RitzEnds",
    "SpectralMeasure",
    "density",
    "extreme_eigenpairs",
    "extreme_eigenvalues",
    "ritz_ends",
    "smallest_mean",
    "spectral_measure",
    "trace",
]
