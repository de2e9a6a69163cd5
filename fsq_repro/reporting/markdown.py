"""Markdown that all tables share: columns, cells with protocols, footnotes, one section per setting."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting.claims import Claim, Finding, RankClaim, judge_all
from fsq_repro.reporting.groups import Group, group_runs, protocol_text, shown, split_by_setting, titled
from fsq_repro.reporting.records import GENERATORS, RunRecord, Setting
from fsq_repro.reporting.verdicts import NOT_MEASURED, RULE

MISSING = "–"
NO_PROTOCOL = "–†"
NO_PROTOCOL_NOTE = "† Left out: the run record gives this value without its protocol."


@dataclasses.dataclass(frozen=True)
class Cell:
    """A table cell's text and, if it shows a measured value, how that was measured."""

    text: str
    protocol: dict[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table whose rows are groups."""

    title: str
    cell: Callable[[Group], Cell | str]


TARGET = Column("target", lambda g: f"2^{g.first.target_bits:g}")
QUANTIZER = Column("quantizer", lambda g: g.quantizer)
LEVELS = Column("levels", lambda g: f"[{', '.join(map(str, g.first.levels))}]" if g.first.levels else MISSING)
GENERATOR = Column("generator", lambda g: g.first.generator)
CODEBOOK = Column("codebook", lambda g: f"{g.first.codebook_size:,}")
BITS = Column("bits", lambda g: f"{g.first.bits:.2f}")
RUNS = Column("runs", lambda g: seeds_text(g))


def metric_column(key: MetricKey, title: str | None = None) -> Column:
    """A metric under its title."""
    return Column(title or titled(key), lambda g: metric_cell(g, key))


def metric_cell(g: Group | None, key: MetricKey) -> Cell:
    """Mean and deviation of a metric; a dash if it was not measured, a marked dash if it has no protocol."""
    if g is None:
        return Cell(MISSING)
    if statistic := g.statistic(key):
        return Cell(shown(key, statistic), g.protocol(key))
    return Cell(NO_PROTOCOL if any(key in r.metrics and not r.measured(key) for r in g.records) else MISSING)


def seeds_text(g: Group) -> str:
    """`3 (seeds 0, 1, 2)`."""
    seeds = [str(r.seed) for r in g.records]
    return f"{len(seeds)} (seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)})"


def group_table(columns: Sequence[Column], groups: Sequence[Group], notes: Sequence[str] = ()) -> str:
    """A footnoted table with a row for each group."""
    cells = [[column.cell(g) for column in columns] for g in groups]
    return footnoted_table([column.title for column in columns], cells, groups, notes)


def footnoted_table(
    header: Sequence[str], rows: Sequence[Sequence[Cell | str]], groups: Iterable[Group], notes: Sequence[str] = ()
) -> str:
    """A Markdown table of these groups, and its footnotes, protocols first and then `notes`.

    A column measured one way carries its footnote mark in the header, else each of its cells does.
    """
    rows = [[Cell(c) if isinstance(c, str) else c for c in row] for row in rows]
    marks: dict[str, str] = {}  # protocol text -> footnote mark, in order of appearance
    covers: dict[str, list[str]] = {}  # protocol text -> titles of the columns measured so
    uniform: list[str | None] = []  # by column: its protocol text if it has one only
    for title, column in zip(header, zip(*rows, strict=True), strict=True):
        texts = list(dict.fromkeys(protocol_text(c.protocol) for c in column if c.protocol))
        for text in texts:
            marks.setdefault(text, f"[{chr(ord('a') + len(marks))}]" if len(marks) < 26 else f"[{len(marks) + 1}]")
            covers.setdefault(text, []).append(title)
        uniform.append(texts[0] if len(texts) == 1 else None)

    def marked(cell: Cell, column: int) -> str:
        own_mark = cell.protocol and not uniform[column]
        return f"{cell.text} {marks[protocol_text(cell.protocol)]}" if own_mark else cell.text

    titles = [f"{title} {marks[text]}" if text else title for title, text in zip(header, uniform, strict=True)]
    lines = [f"{mark} {', '.join(covers[text])}: {text}." for text, mark in marks.items()]
    if any(cell.text == NO_PROTOCOL for row in rows for cell in row):
        lines.append(NO_PROTOCOL_NOTE)
    if any(len(g.records) > 1 for g in groups):
        lines.append("Several seeds: mean ± sample standard deviation.")
    table = markdown_table(titles, [[marked(cell, i) for i, cell in enumerate(row)] for row in rows])
    return table + "\n" + "\n".join(f"{line}  " for line in [*lines, *notes])  # two blanks: a line break in Markdown


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain Markdown table, one line per row."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


@dataclasses.dataclass(frozen=True)
class Section:
    """A titled part of a report on groups of runs."""

    title: str
    shows: Callable[[RunRecord], bool]  # which runs it is about
    tables: Callable[[list[Group]], str]  # of the groups of one setting
    claims: Sequence[Claim | RankClaim] = ()  # judged below the tables, for each kind of generator by itself
    checks: Callable[[list[Group]], list[str]] = lambda groups: []  # lines on what a broken program would fail
    note: str = ""  # last paragraph

    def text(self, records: Iterable[RunRecord]) -> str:
        """Markdown: for each setting its tables, what they say on the claims, and sanity checks."""
        parts = [f"## {self.title}\n"]
        for setting, runs in split_by_setting(r for r in records if self.shows(r)).items():
            groups = group_runs(runs)
            parts += [setting_line(setting, runs) + "\n", self.tables(groups) + "\n"]
            parts += [findings_text(self.judge(groups))] * bool(self.claims)
            if checked := self.checks(groups):
                parts.append("Sanity checks, no findings:\n\n" + "".join(f"- {line}\n" for line in checked))
        return "\n".join(parts + [self.note] * bool(self.note)) if len(parts) > 1 else ""

    def judge(self, groups: list[Group]) -> list[Finding]:
        """The claims on the groups of one setting."""
        present = [kind for kind in (None, *GENERATORS) if any(g.first.generator == kind for g in groups)]
        findings = []
        for kind in present:
            for f in judge_all(self.claims, [g for g in groups if g.first.generator == kind]):
                if f.verdict == NOT_MEASURED and kind == "autoregressive":
                    continue  # the paper's claims are on masked transformers: for others they need not be measured
                findings.append(f if len(present) == 1 else dataclasses.replace(f, claim=f"{kind}: {f.claim}"))
        return findings


def findings_text(findings: Sequence[Finding]) -> str:
    """The judged claims as a list, under the rule that they were judged by; nothing without any."""
    listed = "".join(f"- {f}\n" for f in findings)
    return listed and f"Do the paper's claims appear in these runs? {RULE}\n\n{listed}"


def setting_line(setting: Setting, runs: Sequence[RunRecord]) -> str:
    """The setting, its number of runs, and what they ran on."""
    devices = ", ".join(sorted({r.device for r in runs if r.device}))
    revisions = ", ".join(sorted({r.git_revision[:12] for r in runs if r.git_revision}))
    minutes = sum(r.wall_time_s or 0 for r in runs) / 60
    where = (devices and f" on {devices}") + (revisions and f", revision {revisions}")
    return f"Setting: {setting}. {len(runs)} runs, {minutes:.0f} minutes of training{where}."
