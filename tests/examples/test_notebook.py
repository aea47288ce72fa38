"""The notebook of examples/ runs from top to bottom, and is kept without outputs."""

from __future__ import annotations

import json
import re

import matplotlib
import pytest

NAME = "examples/eventful_detection.ipynb"


@pytest.fixture
def notebook(repository) -> dict:
    return json.loads((repository / NAME).read_text(encoding="utf-8"))


def code_of(notebook: dict) -> list[str]:
    return ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_it_is_kept_without_outputs(notebook):
    """They would be stale sooner or later, and hide in every comparison what changed."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert cells and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_its_cells_run_and_show_what_the_text_says(notebook, repository, tmp_path, monkeypatch, capsys):
    """Its cells are plain Python, so this needs no Jupyter."""
    monkeypatch.chdir(repository / "examples")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for code in code_of(notebook):
            exec(compile(code, NAME, "exec"), names)
        names["plt"].close("all")
    lines = re.findall(r"^(.*): ([\d.]+) GFlops per later frame; .*\bstar\b", capsys.readouterr().out, re.MULTILINE)
    (dense, all_of_it), (eventful, part) = lines
    assert (dense, eventful) == ("dense", "r = 32") and float(part) < float(all_of_it) / 2
    assert len(names["pictures"]) == len(names["shown"]) and names["pictures"][0].shape == (512, 640, 3)
    assert names["costs"] == sorted(names["costs"]) and names["costs"][-1] < float(all_of_it)
    assert names["shares"][-1] > 95 > 80 > names["shares"][0]
    flush, *later = names["gflops"]
    assert flush > max(later) and later[2] > later[10] > later[18] < later[26]


@pytest.mark.long  # a kernel of its own imports PyTorch once more
def test_a_jupyter_kernel_runs_it(repository):
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed (extra 'test')")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed (extra 'test')")
    nodes = nbformat.read(repository / NAME, as_version=4)
    nbformat.validate(nodes)
    client = nbclient.NotebookClient(nodes, timeout=300, resources={"metadata": {"path": str(repository / "examples")}})
    client.execute()
    kinds = [kind for cell in nodes.cells for output in cell.get("outputs", []) for kind in output.get("data", {})]
    assert kinds.count("image/png") == 4
