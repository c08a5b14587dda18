"""Fashion-MNIST at a CPU's budget: IMM, its M = 1 and flow matching at 1, 2, 4 and 8 NFE.

apt-get install dataset-fashion-mnist
python -m benchmarks.fashion --rows=imm,flow --seeds=0,1,2
python -m benchmarks.fashion --data=where/the/idx/files/are

A row and a seed are an ordinary run in <workdir>/<row>/<seed>, done once; `table.md` shows all
finished runs. A run takes five minutes of one core.
"""

from absl import app, flags
import ml_collections

from benchmarks import runs
from configs import flow_fashion, imm_fashion
from dfim.data.images import idx
from dfim.training import monitor

flags.adopt_module_key_flags(runs)  # so that --help shows --rows, --seeds and --quick
_DATA = flags.DEFINE_string("data", idx.FASHION, "The folder of the idx files.")

STEPS = (1, 2, 4, 8)


def one_particle(mode: str) -> ml_collections.ConfigDict:
  """`imm_fashion` with groups of one: each sample against its own pair alone."""
  c = imm_fashion.get_config(mode)
  c.objective.group_size = 1
  return c


ROWS = {"imm": imm_fashion.get_config, "flow": flow_fashion.get_config, "M=1": one_particle}


def config_of(row: str, mode: str) -> ml_collections.ConfigDict:
  """A row's config, scored at STEPS."""
  config = ROWS[row](mode)
  config.data.path = _DATA.value
  config.sampler.steps = STEPS
  return config


def main(_) -> None:
  """Trains the missing runs, then writes the table."""
  monitor.show_log()
  workdir = runs.workdir_of("fashion")
  found = runs.image_scores(ROWS, config_of, workdir)
  if found:
    (workdir / "table.md").write_text(runs.image_table(found, STEPS))
    print(runs.image_table(found, STEPS))


if __name__ == "__main__":
  app.run(main)
