# SPDX-License-Identifier: Apache-2.0
"""Run notebooks from top to bottom and keep their output: all beside this file, or those named."""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent

for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    # Times and versions would differ after every run.
    client = NotebookClient(notebook, timeout=900, record_timing=False, coalesce_streams=True)
    client.execute(cwd=str(FOLDER))
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")
    print(name)
