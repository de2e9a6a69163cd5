"""Writes the tables and figures of all finished runs below a directory, from their run records alone.

python scripts/report.py --runs=runs/tradeoff --out=results/tradeoff
"""

import sys
import warnings

from absl import flags

from fsq_repro.errors import explained
from fsq_repro.reporting.report import write_report
from fsq_repro.runtime import cli
from fsq_repro.runtime.output_flags import define_output_folder

flags.DEFINE_string("runs", None, "Directory with run directories, at any depth.", required=True)
define_output_folder("out", None, "Directory for the tables (Markdown) and figures (PNG).", required=True)
flags.DEFINE_boolean("show_data", True, "Pictures of the data and of reconstructions; off for data of others.")
FLAGS = flags.FLAGS


def main() -> None:
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {message}", file=sys.stderr)
    with explained():
        files = write_report(FLAGS.runs, FLAGS.out, show_data=FLAGS.show_data)
    for file in files:
        if file.suffix == ".md":
            print(file.read_text())
    print("\n".join(map(str, files)))


if __name__ == "__main__":
    cli.run(main)
