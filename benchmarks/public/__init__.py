# SPDX-License-Identifier: Apache-2.0
"""Models of public packages, small, by what they are for."""

from benchmarks.public.atoms import ATOMS
from benchmarks.public.flows import FLOWS
from benchmarks.public.graphs import GRAPHS
from benchmarks.public.language import LANGUAGE
from benchmarks.public.operators import OPERATORS
from benchmarks.public.other import OTHER
from benchmarks.public.sequences import SEQUENCES
from benchmarks.public.vision import VISION

SHELVES = [GRAPHS, ATOMS, SEQUENCES, LANGUAGE, VISION, OPERATORS, FLOWS, OTHER]
