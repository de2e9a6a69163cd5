"""Tables of the generators (stage 2): sampling, compression and guidance beside what the paper reports."""

from collections.abc import Iterable, Sequence

from fsq_repro.reporting import paper
from fsq_repro.reporting.claims_stage2 import levels_sampling_findings, sampling_findings
from fsq_repro.reporting.groups import (
    Group,
    display_quantizer,
    frechet_names,
)
from fsq_repro.reporting.markdown import (
    MISSING,
    Cell,
    figure_cell,
    footnoted_table,
    levels_cell,
    seeds_cell,
    several_seeds,
    study,
    title_and_format,
)
from fsq_repro.reporting.records import RunRecord

OF_INCEPTION = ("spatialfd_{}_{}", "inception_score_{}")  # a column each where a run has them
OF_SAMPLES = (
    "precision_{}",
    "recall_{}",
    "class_fd_own_{}",
    "class_fd_other_{}",
    "class_fd_soup_{}",
    "class_fd_marginal_soup_{}",
)
CLASSES_NOTE = (
    "FD of a class: mean over classes c of the distance from samples of c to the reference of c (own) or of another "
    "class (other). Soups are decoded from tokens drawn one by one from the histogram of c (soup) or of all classes "
    "(marginal soup), and set against the reference of c."
)
COMPRESSION_NOTE = (
    "A code of equal lengths costs log2|C| bits a token, one that knows the marginal distribution alone the marginal "
    "entropy. The coder's stream is that of some images; behind it its excess over the model's cost of the same images."
)


def sampling_table(records: Iterable[RunRecord]) -> str:
    """Codebook size against sampling distance and compression cost (Fig. 3b and 3d), Markdown; generators only.

    One section a setting: a table of the samples, one of the costs, protocols, and the verdicts on the paper's claims.
    """
    return _section("Sampling and compression", records, sampling_findings)


def levels_sampling_table(records: Iterable[RunRecord]) -> str:
    """Level sets by sampling distance, which is what Fig. 10 shows, Markdown; generators on FSQ tokens only."""
    fsq = [r for r in records if r.levels]
    return _section("Sampling and compression by level set", fsq, levels_sampling_findings)


def _section(title: str, records: Iterable[RunRecord], findings) -> str:
    return study(
        title,
        [r for r in records if r.stage1],
        lambda groups: f"{_samples(groups)}\n\n{_costs(groups)}",
        findings,
    )


def lead_cells(g: Group) -> list[Cell]:
    return [
        Cell(f"2^{g.first.target_bits:g}"),
        Cell(display_quantizer(g.first.quantizer)),
        levels_cell(g),
        Cell(g.first.generator),
        Cell(f"{g.first.codebook_size:,}"),
    ]


LEAD = ("target", "quantizer", "levels", "generator", "codebook")


def _samples(groups: Sequence[Group]) -> str:
    names, records = [], [r for g in groups for r in g.records]
    for distance in frechet_names(records, "sfd"):
        _, network, reference = distance.split("_", 2)
        extra = [form.format(network, reference) for form in OF_INCEPTION]
        names += [distance, *(n for n in extra if any(n in r.figures for r in records))]
        names += [form.format(network) for form in OF_SAMPLES]
    names = list(dict.fromkeys(names))  # of two references to one network, precision and the like come once
    header = [*LEAD, *(title_and_format(n)[0] for n in names), "runs", "paper"]
    rows = [
        [*lead_cells(g), *(figure_cell(g, n) for n in names), seeds_cell(g), _paper_cell(g, paper.SAMPLING)]
        for g in groups
    ]
    return footnoted_table(header, rows, several_seeds(groups), [CLASSES_NOTE, paper.SAMPLING_PROTOCOL])


def _costs(groups: Sequence[Group]) -> str:
    titles = (
        "bits log2(C)",
        "compression cost (bits a token)",
        "marginal entropy (bits)",
        "coder (bits a token)",
        "tokens counted",
    )
    rows = [
        [
            *lead_cells(g),
            Cell(f"{g.first.bits:.2f}"),
            figure_cell(g, "compression_bits"),
            figure_cell(g, "entropy_bits"),
            _coder_cell(g),
            figure_cell(g, "tokens"),
            seeds_cell(g),
            _paper_cell(g, paper.COMPRESSION),
        ]
        for g in groups
    ]
    notes = [COMPRESSION_NOTE, paper.COMPRESSION_PROTOCOL]
    return footnoted_table([*LEAD, *titles, "runs", "paper"], rows, several_seeds(groups), notes)


def _coder_cell(g: Group) -> Cell:
    cell, expected = figure_cell(g, "coder_bits"), g.statistic("coder_expected_bits")
    if cell.protocol is None or expected is None:
        return cell
    overhead = g.statistic("coder_bits").mean / expected.mean - 1
    return Cell(f"{cell.text} ({overhead:+.2%})", cell.protocol)


def _paper_cell(g: Group, statements: tuple[paper.Statement, ...]) -> Cell:
    """The paper's generators are masked transformers: it says nothing on other ones."""
    said = []
    if g.first.generator == "masked":
        said = paper.statements(g.first.quantizer, g.first.target_bits, statements)
    return Cell("; ".join(f"{s.text} ({s.source})" for s in said) or MISSING)
