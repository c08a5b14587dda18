"""Every notebook runs in its smoke mode, defines nothing, and carries no outputs."""

import ast
import pathlib

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
import nbformat
import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("colabs/*.ipynb"))
assert NOTEBOOKS


def of(paths, quick=()):
  slow = lambda path: pytest.mark.slow if quick and path.stem not in quick else ()
  return [pytest.param(path, id=path.stem, marks=slow(path)) for path in paths]


@pytest.fixture(params=of(NOTEBOOKS))
def notebook(request):
  return nbformat.read(request.param, as_version=nbformat.NO_CONVERT)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("notebook", of(NOTEBOOKS, quick=["moment_forcing"]), indirect=True)
def test_runs_in_smoke_mode_and_shows_pictures(notebook, tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  monkeypatch.setenv("TMPDIR", str(tmp_path))
  full = [cell for cell in code_cells(notebook) if 'MODE = "full"' in cell.source]
  assert len(full) == 1
  full[0].source = full[0].source.replace('MODE = "full"', 'MODE = "smoke"')
  specs = KernelSpecManager(kernel_dirs=[])  # none but ipykernel's own: this interpreter
  manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
  resources = dict(metadata=dict(path=str(ROOT)))
  client = NotebookClient(notebook, km=manager, resources=resources, timeout=300)
  client.execute(cleanup_kc=True)  # which a client does by itself only with a manager of its own
  outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
  assert not [output for output in outputs if output.output_type == "error"]
  assert len([output for output in outputs if "image/png" in output.get("data", {})]) >= 4


def test_is_valid_defines_nothing_and_has_no_outputs(notebook):
  nbformat.validate(notebook)
  assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
  assert all(cell.id for cell in notebook.cells)
  assert not [cell for cell in code_cells(notebook) if cell.outputs or cell.execution_count]
  tree = ast.parse("\n".join(cell.source for cell in code_cells(notebook)))
  definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
  assert not [node.name for node in ast.walk(tree) if isinstance(node, definitions)]
