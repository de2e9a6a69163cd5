"""Fig. 3: codebook size against reconstruction, sampling, usage and compression cost.

The claims on a coder, on one class against the others and on soups are not the paper's: they say whether the generator
learnt anything and whether its cost is a cost that a decoder can read.
"""

import dataclasses
from collections.abc import Callable, Sequence

from fsq_repro.metrics.table import MetricKey
from fsq_repro.reporting import claims, markdown, paper, verdicts
from fsq_repro.reporting.claims import NOT_OF_THE_PAPER, OURS, Claim, Pairs, RankClaim, Side
from fsq_repro.reporting.groups import Group, keys_of
from fsq_repro.reporting.markdown import MISSING, Cell, Column, Section, metric_column

FULL_USAGE = 0.95  # of the usage that a uniform source would show
COLLAPSED_USAGE, COLLAPSED_CODES = 0.5, 2**10
SATURATED = 0.05  # a change of less than this share counts as none
SLIGHTLY = 0.10  # by at most this share
AGREEMENT = 0.6  # of samples against reconstructions
WELL_BELOW = 0.9  # own class against other classes
CODER_TOLERANCE = 0.01  # of the coder's stream against the model's cost

FIG3A, FIG3B, FIG3C, FIG3D = (f"section 5.1, Fig. 3{letter}" for letter in "abcd")


def _codes_of_collapsed(vq: str) -> Callable[..., Pairs]:
    """VQ's codes beyond 2^11 against the bound, where a uniform source would use at least twice as many."""

    def pairs(groups: Sequence[Group], key: MetricKey) -> Pairs:
        for g in claims.family(groups, vq, low=11.5):
            uniform = g.statistic(MetricKey("uniform_usage"))
            if g.values(key) and uniform and uniform.mean * g.first.codebook_size >= 2 * COLLAPSED_CODES:
                yield claims.side(g, key), Side("a bound of", key, verdicts.exactly(COLLAPSED_CODES))

    return pairs


def _against_2_12(groups: Sequence[Group], key: MetricKey) -> Pairs:
    """The best FSQ of each size beyond 2^12 against that of 2^12."""
    start, *larger = claims.best_by_size(claims.family(groups, "fsq", low=12), key) or [None]
    if start and start.first.target_bits == 12:
        yield from ((claims.side(g, key), claims.side(start, key)) for g in larger if claims.alike(g, start, key))


COST = "compression_bits"
LARGER_FSQ = claims.larger_first("fsq")
ENTROPY = claims.against("entropy_bits", "an entropy of")
FALLS = "{title}: falls as the compression cost rises"


def _autoencoder_claims(vq: str, name: str, only_with: str = "") -> tuple[Claim, ...]:
    """What the paper says of a kind of VQ, which it has one of."""
    ahead = claims.same_size("fsq", vq, low=10.5)
    found = (
        Claim(f"FSQ uses a larger share of its codebook than {name} beyond 2^10", FIG3C, "usage", ahead, above=1),
        Claim(
            f"{name} uses less than {COLLAPSED_USAGE:.0%} of the codes that a uniform source would use beyond 2^11",
            f"{FIG3C}, there less than 50% of the codebook",
            "usage",
            claims.against("uniform_usage", "a uniform source", vq, low=11.5),
            below=COLLAPSED_USAGE,
        ),
        Claim(f"{name} uses fewer than 2^10 codes beyond 2^11", FIG3C, "codes_used", _codes_of_collapsed(vq), below=1),
        Claim(
            f"{{title}}: FSQ ahead of {name} beyond 2^10",
            "section 5.1, said of sampling FID, Fig. 3b",
            "reconstruction_fd",
            ahead,
            better_by=0,
        ),
        Claim(
            f"{{title}}: {name} slightly ahead of FSQ up to 2^8 (by at most {SLIGHTLY:.0%})",
            f"{FIG3A}; {OURS}",
            "reconstruction_fd",
            claims.same_size(vq, "fsq", high=8),
            above=1 - SLIGHTLY,
            below=1,
        ),
        Claim(
            f"{{title}}: {name} worsens beyond 2^11",
            FIG3A,
            "reconstruction_fd",
            claims.smaller_first(vq, low=11),
            better_by=0,
        ),
    )
    return tuple(dataclasses.replace(claim, only_with=only_with) for claim in found)


def _generator_claims(vq: str, name: str, only_with: str = "") -> tuple[Claim | RankClaim, ...]:
    """The same of the generators on its tokens."""
    ahead, worsens = claims.same_size("fsq", vq, low=10.5), claims.smaller_first(vq, low=11)
    found = (
        Claim(f"{{title}}: FSQ ahead of {name} beyond 2^10", FIG3B, "sampling_fd", ahead, better_by=0),
        Claim(f"{{title}}: {name} worsens beyond 2^11", FIG3B, "sampling_fd", worsens, better_by=0),
        RankClaim(f"{FALLS}, {name}", "section 5.1, Fig. 3b and 3d", "sampling_fd", COST, vq),
        Claim(
            f"compression cost of FSQ slightly above that of {name} at equal size (by at most {SLIGHTLY:.0%})",
            f"{FIG3D}; {OURS}",
            COST,
            claims.same_size("fsq", vq),
            above=1,
            below=1 + SLIGHTLY,
        ),
        Claim(
            f"compression cost of {name} drops beyond 2^11, where its usage collapses",
            FIG3D,
            COST,
            claims.larger_first(vq, low=11),
            below=1,
        ),
    )
    return tuple(dataclasses.replace(claim, only_with=only_with) for claim in found)


NARROW = ("vq_narrow", "VQ of narrow codes", "vq_narrow")
AUTOENCODER_CLAIMS = (
    Claim(
        f"FSQ uses at least {FULL_USAGE:.0%} of the codes that a uniform source would use, at every size",
        f"{FIG3C}: almost all of 2^14; Fig. 4: 100% of [8,5,5,5]; {OURS}",
        "usage",
        claims.against("uniform_usage", "a uniform source", "fsq"),
        above=FULL_USAGE,
    ),
    Claim("{title}: FSQ improves with every larger codebook", FIG3A, "reconstruction_fd", LARGER_FSQ, better_by=0),
    Claim("{title}: FSQ improves with every larger codebook", NOT_OF_THE_PAPER, "psnr", LARGER_FSQ, better_by=0),
    *_autoencoder_claims("vq", "VQ"),
    *_autoencoder_claims(*NARROW),
)
GENERATOR_CLAIMS = (
    Claim(
        f"{{title}}: FSQ saturates from 2^12, larger codebooks change it by less than {SATURATED:.0%}",
        f"{FIG3B}; {OURS}",
        "sampling_fd",
        _against_2_12,
        above=1 - SATURATED,
        below=1 + SATURATED,
    ),
    RankClaim(f"{FALLS}, FSQ", "section 5.1, Fig. 3b and 3d", "sampling_fd", COST, "fsq"),
    Claim(
        f"{{title}}: samples of a class are nearer to it than to other classes (below {WELL_BELOW:g} of it)",
        f"{NOT_OF_THE_PAPER}; {OURS}",
        "class_fd_own",
        claims.against("class_fd_other", "other classes"),
        below=WELL_BELOW,
    ),
    Claim(
        "{title}: samples of a class are nearer to it than tokens drawn from its histogram (soup)",
        "appendix A.3 shows soups",
        "class_fd_own",
        claims.against("class_fd_soup", "soup"),
        below=1,
    ),
    Claim(
        f"{{title}}: FSQ's samples reach at least {AGREEMENT:.0%} of that of its reconstructions",
        f"{NOT_OF_THE_PAPER}; {OURS}",
        "class_agreement",
        claims.against("class_agreement_reconstructed", "reconstructions", "fsq"),
        above=AGREEMENT,
    ),
    Claim("compression cost of FSQ rises with the codebook size", FIG3D, COST, LARGER_FSQ, above=1),
    Claim("compression cost below the marginal entropy, every point", NOT_OF_THE_PAPER, COST, ENTROPY, below=1),
    *_generator_claims("vq", "VQ"),
    *_generator_claims(*NARROW),
)

CLASSES_NOTE = (
    "Class agreement: share of the samples that a classifier puts into the class that was asked for, and the same of "
    "the test images and of their reconstructions. FD of a class: mean over classes c of the distance from samples of "
    "c to the reference of c (own) or of another class (other). Soups are decoded from tokens drawn one by one from "
    "the histogram of c (soup) or of all classes (marginal soup), and set against the reference of c."
)
COMPRESSION_NOTE = (
    "A code of equal lengths costs log2|C| bits per token, one that knows the marginal distribution alone the marginal "
    "entropy. The coder's stream is that of some images; behind it its excess over the model's cost of the same images."
)
OF_DISTANCE = ("spatial_fd", "inception_score")  # a column each where a run has them
OF_SAMPLES = ("precision", "recall")
OF_CLASSES = ("class_agreement", "class_agreement_reconstructed", "class_agreement_real")
OF_CLASSES += ("class_fd_own", "class_fd_other", "class_fd_soup", "class_fd_marginal_soup")
AUTOENCODER = ("psnr", "ssim", "usage", "entropy_bits", "uniform_usage", "tokens")
SIZES = (markdown.TARGET, markdown.QUANTIZER, markdown.LEVELS, markdown.CODEBOOK, markdown.BITS)  # of autoencoders
LEAD = (markdown.TARGET, markdown.QUANTIZER, markdown.LEVELS, markdown.GENERATOR, markdown.CODEBOOK)  # of generators


def autoencoder_table(groups: Sequence[Group], lead: Sequence[Column], metrics: Sequence[str], last: Column) -> str:
    """All reconstruction distances, then these metrics; a row for each group, the paper's words last."""
    keys = [*keys_of((g.first for g in groups), "reconstruction_fd"), *map(MetricKey, metrics)]
    columns = [*lead, *map(metric_column, keys), markdown.RUNS, last]
    return markdown.group_table(columns, groups, [paper.PROTOCOL])


def generator_tables(groups: Sequence[Group]) -> str:
    """Tables of the samples, of their classes where these were measured, and of the costs."""
    records = [g.first for g in groups]
    keys, classes = [], []
    present = [k for name in OF_DISTANCE for k in keys_of(records, name)]
    for distance in keys_of(records, "sampling_fd"):
        network, reference = ("", distance.network), ("", distance.reference)
        keys += [distance, *(k for k in present if k.network in network and k.reference in reference)]
        keys += [MetricKey(name, network=distance.network) for name in OF_SAMPLES]
        classes += [k for name in OF_CLASSES for k in keys_of(records, name) if k.network == distance.network]
    # Of two references to one network, precision and the like come once.
    keys, classes = dict.fromkeys(keys), dict.fromkeys(classes)
    costs = [
        dataclasses.replace(markdown.BITS, title="bits log2(C)"),
        metric_column(MetricKey(COST)),
        metric_column(MetricKey("entropy_bits"), "marginal entropy (bits)"),
        Column("coder (bits per token)", _coder_cell),
        metric_column(MetricKey("tokens")),
    ]
    tables = (
        (map(metric_column, keys), paper.SAMPLING, [paper.SAMPLING_PROTOCOL]),
        (map(metric_column, classes), (), [CLASSES_NOTE]),
        (costs, paper.COMPRESSION, [COMPRESSION_NOTE, paper.COMPRESSION_PROTOCOL]),
    )
    texts = []
    for columns, study, notes in tables:
        if shown := list(columns):
            said = [paper_column(study, "masked")] * bool(study)
            texts.append(markdown.group_table([*LEAD, *shown, markdown.RUNS, *said], groups, notes))
    return "\n\n".join(texts)


def paper_column(statements: Sequence[paper.Statement], generator: str | None) -> Column:
    """What the paper says on a row. Its generators are masked transformers: it says nothing on other ones."""

    def said(g: Group) -> str:
        found = paper.statements(g.first.quantizer, g.first.target_bits, statements)
        texts = [f"{s.text} ({s.source})" for s in found if g.first.generator == generator]
        return "; ".join(texts) or MISSING

    return Column("paper", said)


def sanity_checks(groups: list[Group]) -> list[str]:
    """What a broken program would fail and no model could: the cost of a uniform code, and a coder's stream."""
    cost, coder = MetricKey(COST), MetricKey("coder_bits")
    pairs = [
        (claims.side(g, cost), Side("log2|C|", cost, verdicts.exactly(g.first.bits))) for g in groups if g.values(cost)
    ]
    streams = list(claims.against("coder_expected_bits", "the model's")(groups, coder))
    close = [abs(a.statistic.mean / b.statistic.mean - 1) < CODER_TOLERANCE for a, b in streams]
    checks = (
        ("compression cost below log2|C|, every point", [a.statistic.mean < b.statistic.mean for a, b in pairs], pairs),
        (f"a range coder's stream is within {CODER_TOLERANCE:.0%} of the model's cost", close, streams),
    )
    return [
        f"{text}: {'holds' if all(held) else '**fails**'}; {', '.join(f'{a} against {b}' for a, b in shown_pairs)}."
        for text, held, shown_pairs in checks
        if held
    ]


def _coder_cell(g: Group) -> Cell:
    key, expected = MetricKey("coder_bits"), g.statistic(MetricKey("coder_expected_bits"))
    cell = markdown.metric_cell(g, key)
    if cell.protocol is None or expected is None:
        return cell
    return Cell(f"{cell.text} ({g.statistic(key).mean / expected.mean - 1:+.2%})", cell.protocol)


# Fig. 3a and 3c; rows by target bits, then quantizer.
AUTOENCODERS = Section(
    "Trade-off: codebook size, reconstruction and usage",
    lambda r: r.stage1 is None,
    lambda groups: autoencoder_table(groups, SIZES, AUTOENCODER, paper_column(paper.TRADEOFF, None)),
    AUTOENCODER_CLAIMS,
)
# Fig. 3b and 3d.
GENERATORS = Section(
    "Sampling and compression", lambda r: r.stage1 is not None, generator_tables, GENERATOR_CLAIMS, sanity_checks
)
