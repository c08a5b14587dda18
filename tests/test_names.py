"""The field's own names, in code and in prose."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FORMER = set(  # identifiers of before, whose meaning a reader could not guess
  """apart_before as_they_came ask at_places averaged batch_mean claim datum draw_each fits
  held kept kinds law like_prefixes likeness look looks near own own_times places plain restored
  rival s_at_r s_at_t_min sheet still_due takes told word""".split()
)
RIDDLES = r"\b(rivals?|mended|stands? still|the fusion|network calls?|(data )?laws? of the data)\b"


def public_names(path):
  """Functions, classes, their arguments and fields, and names of a module, without `_`."""
  tree = ast.parse(path.read_text())
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      yield node.name
    if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
      yield from (a.arg for a in (*node.args.args, *node.args.kwonlyargs))
    if isinstance(node, ast.ClassDef | ast.Module):
      for part in node.body:
        targets = getattr(part, "targets", [getattr(part, "target", None)])
        yield from (t.id for t in targets if isinstance(t, ast.Name))


@pytest.mark.parametrize("folder", ["dfim", "configs"])
def test_no_public_name_is_a_former_one(folder):
  found = {
    f"{path.relative_to(ROOT)}: {name}"
    for path in (ROOT / folder).rglob("*.py")
    for name in public_names(path)
    if name in FORMER
  }
  assert not found


def test_no_riddles_in_documents_and_texts():
  paths = [
    p for f in ("dfim", "configs", "docs", "colabs", "launch") for p in (ROOT / f).rglob("*")
  ]
  for path in (*paths, *ROOT.glob("*.md")):
    if path.suffix in {".py", ".md", ".ipynb", ".sh", ".slurm"}:
      assert not re.findall(RIDDLES, path.read_text(), re.I), path
