"""Runs the notebooks and keeps what they print and draw, without anything of the machine.

python -m scripts.docs.notebooks [projects/notebooks/NAME.ipynb ...]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import jupyter_client
import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[2]
KEPT = ("text/plain", "image/png")


def run(path: Path) -> nbformat.NotebookNode:
    """The notebook with its outputs. Its kernel listens on sockets in the file system: a TCP port may be
    taken by the test beside it."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        kernel = jupyter_client.AsyncKernelManager(transport="ipc", connection_file=f"{folder}/kernel.json")
        return nbclient.NotebookClient(
            notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(path.parent)}}
        ).execute()


def strip(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same with outputs of the kinds that are kept, and without counters, progress bars and
    lines that name a folder for a while."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.execution_count, kept = None, []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stdout":
                lines = output.text.lstrip("\n").splitlines(keepends=True)
                output.text = "".join(line for line in lines if tempfile.gettempdir() not in line)
                kept += [output] if output.text else []
            elif output.output_type in ("display_data", "execute_result"):
                data = {kind: output.data[kind] for kind in KEPT if kind in output.data}
                kept.append(nbformat.v4.new_output("display_data", data))
        cell.outputs = kept
    notebook.metadata.pop("language_info", None)
    return notebook


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(map(str, (ROOT / "projects/notebooks").glob("*.ipynb"))):
        nbformat.write(strip(run(Path(name))), name)
