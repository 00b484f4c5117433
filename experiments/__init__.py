# SPDX-License-Identifier: Apache-2.0
"""Experiments that redraw figures of four papers: ``python -m experiments NAME --preset P``.

Each experiment is a package ``experiments/NAME`` of four modules; the command line does the rest
(flags, folders, records, progress, tables, reports).

``config.py`` imports no jax, so that ``--help`` is instant:

* ``Config``, a frozen dataclass with at least the integer fields ``seed`` (the first) and ``seeds``
  (how many). Every field is a flag of its name and type, and its comment is the flag's help;
  fields of a dataclass inside are flags too (``--regimes.0.batch-size 64``), and a tuple of numbers
  or names is written with commas (``--methods kappa,random``). A string field ``scale`` says in one
  sentence how the run's size compares with the paper's; every caption repeats it.
* ``PRESETS``, a dictionary from name to ``Config``; one is called ``quick``. ``ABOUT`` says of each
  what it shows, in how many minutes and from what data: ``NAME --presets`` lists them.
* ``DEFAULT``, optional: the preset of a run that names none, if not ``quick``.
* ``check(config)`` raises ValueError with one line before any work is done.
* ``FIGURES``, optional: the names that ``NAME FIGURE`` accepts besides ``all``; and
  ``ON_ONE_DEVICE``, those of them that have nothing to spread over several.
* ``DETAILS``, optional: a paragraph of the help.

``run.py`` does the work:

* ``run(config, *, progress) -> (results, curves)``, or ``run(config, figure, *, progress)`` once
  per figure where ``config.py`` has FIGURES: usually ``collected({method: each_seed(...)})``, by
  `experiments.results`. `progress` is an `experiments.progress.Progress`; what goes through
  ``progress.once`` survives an interruption.
* ``versions(config) -> dict``, or ``versions(config, figure)`` with FIGURES (None: of them all),
  optional: more versions for the record, such as those of the data; one that speaks of a lossy copy
  is repeated in every table and figure.

``figures`` and ``words``, two modules or packages, read records only:

* ``figures.draw(record, curves) -> {name: matplotlib Figure}``, drawn with
  `experiments.report.style`.
* ``figures.pooled(runs) -> {name: Figure}``, optional: what ``report FOLDER`` draws into the index
  of several runs, each a pair of a record and its curves.
* ``words.METRICS``: ``{metric: experiments.report.tables.Metric}``, what each number is called and
  means; or ``words.metrics(record)``, the same where that depends on the settings.
* ``words.measured(record) -> list of str``: what was measured and how, one paragraph each.
* ``words.findings(record) -> {name of a figure: str}``, optional: what it shows, in a sentence that
  opens its caption.
* ``words.tables(record) -> list of experiments.report.tables.Table``, optional, instead of the
  usual tables.
"""

from typing import NamedTuple

EXPERIMENTS = {
    name: f"experiments.{name}"
    for name in ("pl_pruning", "pl_star", "matrix_sensing", "alpha_beta")
} | {"atlas": "experiments.pl_pruning.atlas"}


class About(NamedTuple):
    """What a preset is for."""

    minutes: float | None  # On two cores; None where nobody has taken the time.
    data: str = ""  # What has to be prepared; empty where nothing has.
    claim: str = ""  # What it shows.
    expected: str = ""  # The numbers.
