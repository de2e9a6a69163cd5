"""Makes tables and figures from run records: `python scripts/report.py --runs=DIR --out=DIR`.

Reads every `record.json` below --runs and writes Markdown tables and PNG figures to --out. Needs no accelerator and no
JAX. Exit code 2 if there is nothing to report.
"""

import sys
import warnings

from absl import app, flags

from fsq_repro.reporting.report import write_report

RUNS = flags.DEFINE_string("runs", None, "Directory with run directories, searched for record.json.", required=True)
OUT = flags.DEFINE_string("out", None, "Directory for the tables and figures; made if missing.", required=True)


def main(argv: list[str]) -> int:
    if len(argv) > 1:
        print(f"report: unexpected argument {argv[1]!r}; give --runs=DIR and --out=DIR.", file=sys.stderr)
        return 1
    warnings.showwarning = lambda message, *_, **__: print(f"report: {message}", file=sys.stderr)
    try:
        files = write_report(RUNS.value, OUT.value)
    except (ValueError, FileNotFoundError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 2
    for file in files:
        print(file)
    return 0


if __name__ == "__main__":
    app.run(main)
