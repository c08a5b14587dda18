"""The results of `make trust` as a table: python -m tests.trust.report runs/trust.xml"""

import collections
import sys
import xml.etree.ElementTree as ElementTree


def rows(path: str) -> list[tuple[str, str, int, float, str]]:
  """Module, test, number of runs, seconds, and recorded properties."""
  found = collections.defaultdict(lambda: [0, 0.0, []])
  for case in ElementTree.parse(path).iter("testcase"):
    if not case.get("name"):  # an error outside of a test
      continue
    name = case.get("classname").rsplit(".", 1)[-1], case.get("name").split("[")[0]
    row = found[name]
    failed = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
    row[0], row[1] = row[0] + 1, row[1] + float(case.get("time"))
    row[2] += [f"{p.get('name')}: {p.get('value')}" for p in case.iter("property")] + failed
  return [(*name, *row[:2], "; ".join(dict.fromkeys(row[2]))) for name, row in found.items()]


def main(path: str) -> None:
  print("| experiments | test | times | seconds | found |\n|---|---|---|---|---|")
  for module, test, times, seconds, found in rows(path):
    print(f"| {module.removeprefix('test_')} | {test[5:]} | {times} | {seconds:.0f} | {found} |")


if __name__ == "__main__":
  main(*sys.argv[1:])
