"""Scores samplers of a stage-II run on its validation images; the table is what a sampler is chosen by.

    python scripts/search_sampler.py --workdir=runs/fsq_10_maskgit --set=choice_temperature=1,2,4.5 --set=num_steps=8,12

All combinations of the values are tried; fields that are not named keep the run's value. Test images are not looked at.
"""

import ast
import itertools

from absl import flags

from fsq_repro.errors import UserError
from fsq_repro.evaluation.sampler_search import SamplerSearch
from fsq_repro.factories import common
from fsq_repro.reporting.markdown import markdown_table
from fsq_repro.runtime import cli, startup
from fsq_repro.runtime.run_dir import RunDir

flags.DEFINE_string("workdir", None, "Run directory of stage II.")
flags.DEFINE_multi_string("set", [], "FIELD=VALUE,VALUE,...: a field of config.sampler and the values to try.")
flags.DEFINE_integer("samples", 2000, "Samples per trial, as many per class.", lower_bound=2)
flags.DEFINE_string("stage1", None, "Stage I's run directory, if it is no longer where it was.")
flags.mark_flags_as_required(["workdir", "set"])
FLAGS = flags.FLAGS


def main() -> None:
    fields = dict(map(values_of, FLAGS.set))
    run = RunDir(FLAGS.workdir)
    startup.start(common.batch_sizes(run.config))
    search = SamplerSearch.open(run, stage1=FLAGS.stage1)
    trials = [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]
    rows = []
    for trial, distances in zip(trials, search.score(trials, FLAGS.samples), strict=True):
        rows.append([*(f"{v:g}" for v in trial.values()), *(f"{d:.2f}" for d in distances.values())])
        print(f"{trial}: {', '.join(f'FD-{name} {d:.2f}' for name, d in distances.items())}", flush=True)
    print()
    networks = [f"FD-{scorer.name} (validation)" for scorer in search.scorers]
    print(markdown_table([*fields, *networks], rows))


def values_of(text: str) -> tuple[str, list[float]]:
    field, equals, values = text.partition("=")
    try:
        found = [ast.literal_eval(value) for value in values.split(",")]
    except (ValueError, SyntaxError):
        found = []
    if not equals or not found or not all(isinstance(value, int | float) for value in found):
        raise UserError(f"--set={text} is not FIELD=VALUE,VALUE,... with numbers")
    return field, found


if __name__ == "__main__":
    cli.run(main)
