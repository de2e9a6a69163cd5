"""Interrupts tiny but real trainings at random moments; all must end as unbroken ones do, bit by bit.

    python scripts/torture.py [--kills=100] [--terms=20] [--full_disks=5] [--kinds=maskgit] [--out=torture.md]

The kills (SIGKILL) and terms (SIGTERM) are shared by the kinds of training: stage I with GAN, EMA-VQ, stage II, both
stages of UViM. After each one the same command is started again. See `fsq_repro/profiling/torture.py` for what is
compared, and `full_disk.py` for the disks, which need root. It takes some 10 s per interruption on an idle core.
"""

import pathlib
import shutil
import signal
import tempfile
from collections.abc import Iterator

from absl import flags

from fsq_repro.errors import UserError
from fsq_repro.files import atomic_path
from fsq_repro.profiling import full_disk
from fsq_repro.profiling.torture import KINDS, PHASES, Row, Torture
from fsq_repro.runtime import cli, output_flags, startup

flags.DEFINE_integer("kills", 100, "SIGKILLs in total.", lower_bound=0)
flags.DEFINE_integer("terms", 20, "SIGTERMs in total.", lower_bound=0)
flags.DEFINE_integer("full_disks", 5, "Disks to fill.", lower_bound=0)
flags.DEFINE_multi_enum("kinds", list(KINDS), list(KINDS), "What to train; all by default.")
flags.DEFINE_integer("seed", 0, "Of the moments.")
flags.DEFINE_string("workdir", None, "Keeps runs, output and compilation cache there; it must be new or empty.")
output_flags.define_output_file("out", "Markdown file for the table.")
FLAGS = flags.FLAGS

HEADER = ("training", "interrupted by", "times", *(f"during {phase}" for phase in PHASES), "runs", "resumes", "result")


def main() -> int:
    startup.start()
    folder = pathlib.Path(FLAGS.workdir or tempfile.mkdtemp(prefix="torture.")).absolute()
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"--workdir={folder} must be new or empty")
    rows = []
    for row in _rows(folder):
        rows.append(row)
        table = _table(rows)
        print(table, flush=True)
        if FLAGS.out:
            with atomic_path(FLAGS.out) as file:
                file.write_text(table)
    if not FLAGS.workdir:
        shutil.rmtree(folder)
    return int(any(row.problem for row in rows))


def _rows(folder: pathlib.Path) -> Iterator[Row]:
    torture = Torture(folder, FLAGS.seed)
    for number, total in ((signal.SIGKILL, FLAGS.kills), (signal.SIGTERM, FLAGS.terms)):
        for i, kind in enumerate(FLAGS.kinds):
            if count := len(range(i, total, len(FLAGS.kinds))):
                yield torture.interrupt(kind, number, count)
    if FLAGS.full_disks:
        yield full_disk.fill_disks(torture, FLAGS.kinds[0], folder, FLAGS.full_disks, FLAGS.seed)


def _table(rows: list[Row]) -> str:
    lines = [HEADER, ["---"] * len(HEADER)]
    for row in rows:
        during = [row.during[phase] for phase in PHASES]
        lines.append(
            (row.kind, row.by, sum(during), *during, row.runs, row.resumes, row.problem or row.note or "equal")
        )
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    cli.run(main)
