"""Time and memory of the quantizers alone, if wanted beside those of the package vector-quantize-pytorch.

The package runs in a process of its own in an environment that has it and times calls whenever it is asked to, so
that the two sides take turns: what else the machine does slows both.
"""

import contextlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from fsq_repro.errors import UserError
from fsq_repro.profiling.benchmark import matrix_rate
from fsq_repro.profiling.program_costs import matrix_flops
from fsq_repro.quantizers import QUANTIZERS, make_quantizer, suggest, suggest_levels

TOKENS = (4096, 131_072)
SECONDS = 3.0  # of the turns of one program, apart from the first few
TURN = 0.02  # seconds of one side, or one call
PEER_KINDS = ("fsq", "vq", "ema_vq")  # what PEER can make; others are measured without it, at one size
PEER_ELEMENTS = 2**28  # tokens x codes that the package is asked for: it holds several such matrices
HEADER = ("quantizer", "tokens", "pass", "median (ms)", "fastest (ms)", "temporaries (MiB)", "of matrix rate")
PEER_HEADER = ("peer, median (ms)", "peer / ours", "of the fastest")


def learned(name: str, codes: int, **fields: Any) -> tuple[str, dict[str, Any]]:
    return name, {"codebook_size": codes, "embedding_dim": 64, **fields}


# Row's name -> name in the registry and fields.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"fsq 2^{bits}": ("fsq", {"levels": suggest_levels(2**bits)}) for bits in (10, 16)},
    **{f"vq {k}, no entropy term": learned("vq", k, entropy_ratio=0.0) for k in (1024, 16_384)},
    **{f"vq {k}": learned("vq", k) for k in (1024, 16_384)},
    **{f"ema_vq {k}": learned("ema_vq", k) for k in (1024, 16_384)},
    **{f"{k} 2^10": (k, suggest(codebook_size=1024, kind=k)) for k in QUANTIZERS if k not in PEER_KINDS},
}

# Reads lines of JSON (name, fields, tokens, backward) and answers each with the seconds of a call, see `turn`. With
# MaskGIT's entropy term it does the most similar that it has, a term for the entropy of the mean alone.
PEER = """
import functools, json, sys, time, torch
from vector_quantize_pytorch import FSQ, VectorQuantize

@functools.cache
def make(name, fields):
    fields = json.loads(fields)
    if name == "fsq":
        return FSQ(fields["levels"])
    ours = dict(decay=0.995, commitment_weight=0.0)
    if name == "vq":
        ours = dict(learnable_codebook=True, ema_update=False, commitment_weight=0.25)
        ours |= dict(codebook_diversity_loss_weight=fields.get("entropy_ratio", 0.1))
    return VectorQuantize(fields["embedding_dim"], fields["codebook_size"], rotation_trick=False, **ours)

for line in sys.stdin:
    name, fields, tokens, backward = json.loads(line)
    module = make(name, json.dumps(fields)).train(backward)
    dim = len(fields["levels"]) if name == "fsq" else fields["embedding_dim"]
    z = torch.randn(1, tokens, dim, generator=torch.Generator().manual_seed(0), requires_grad=backward)
    def call():
        module.zero_grad()
        started = time.perf_counter()
        codes, _, *loss = module(z)
        if backward:
            (codes.square().mean() + sum(l.sum() for l in loss)).backward()
        return time.perf_counter() - started
    with torch.set_grad_enabled(backward):
        until, times = time.perf_counter() + TURN, [call()]
        while time.perf_counter() < until:
            times.append(call())
    print(min(times), flush=True)
"""


class Peer:
    """The package's side; a context manager. UserError where it fails.

    Args:
      python: the interpreter of an environment with vector-quantize-pytorch.
    """

    def __init__(self, python: str):
        # Torch's threads would wait for each other spinning: where cores are shared, for 200 ms instead of 5.
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        command = [python, "-c", f"TURN = {TURN}\n{PEER}"]
        self._process = subprocess.Popen(command, env=environment, **pipes)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._process.kill()
        self._process.communicate()

    def seconds(self, name: str, fields: dict[str, Any], tokens: int, backward: bool) -> float:
        """Of a `turn`; with `backward` calls are a training step's forward and backward pass."""
        with contextlib.suppress(BrokenPipeError):  # there will be no answer either
            print(json.dumps((name, fields, tokens, backward)), file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise UserError("the process of vector-quantize-pytorch failed; its message is above")
        return float(line)


def program(module: nn.Module, variables: Any, backward: bool) -> Callable[[Any, jax.Array], Any]:
    """(parameters, z) -> `Quantized`; with `backward` a training step's gradients, indices, metrics and state."""
    state = {k: v for k, v in variables.items() if k != "params"}

    def apply(params: Any, z: jax.Array, train: bool) -> Any:
        rngs = {"quantizer": jax.random.key(2)}
        return module.apply({"params": params, **state}, z, train=train, mutable=list(state), rngs=rngs)

    def loss(params: Any, z: jax.Array) -> tuple[jax.Array, Any]:
        quantized, updated = apply(params, z, True)
        return jnp.mean(jnp.square(quantized.codes)) + quantized.loss, (quantized.indices, quantized.metrics, updated)

    return jax.value_and_grad(loss, (0, 1), has_aux=True) if backward else lambda p, z: apply(p, z, False)[0]


def turn(call: Callable[[], Any]) -> float:
    """Seconds of the fastest of a few calls, for TURN together; the first after the other side's turn may be slow."""
    until, times = time.perf_counter() + TURN, []
    while not times or time.perf_counter() < until:
        started = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - started)
    return min(times)


def measure(case: str, tokens: int, backward: bool, repeats: int, peer: Peer | None) -> list[str]:
    """A row of the table: entries as in HEADER and, where there is a peer, PEER_HEADER; "-" for what there is not.

    Times are medians and minima of at least 3 and at most `repeats` turns, in about `SECONDS`. Temporaries are XLA's
    account of the program. The share of the matrix rate is that of the operations of all products in the median time,
    the rate measured right after. The peer's ratios are the median over pairs of turns and that of the fastest ones.
    """
    name, fields = CASES[case]
    module = make_quantizer(name, **fields)
    keys = {"params": jax.random.key(0), "quantizer": jax.random.key(1)}
    variables = jax.jit(lambda keys: module.init(keys, jnp.ones((1, module.num_channels)), train=False))(keys)
    arguments = variables.get("params", {}), jax.random.normal(jax.random.key(3), (tokens, module.num_channels))
    traced = jax.jit(program(module, variables, backward)).trace(*arguments)
    compiled = traced.lower().compile()
    if name not in PEER_KINDS or name != "fsq" and tokens * module.codebook_size > PEER_ELEMENTS:
        peer = None
    ours, theirs = [], []
    started = time.perf_counter()
    while len(ours) < 4 or (len(ours) <= repeats and time.perf_counter() - started < SECONDS):
        ours.append(turn(lambda: compiled(*arguments)))
        if peer:
            theirs.append(peer.seconds(name, fields, tokens, backward))
    a, b = 1e3 * np.array(ours[1:]), 1e3 * np.array(theirs[1:])  # the first may be slower
    share = matrix_flops(traced.jaxpr) / np.median(a) * 1e3 / matrix_rate(1024)
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    row = [case, f"{tokens:,}", "training" if backward else "forward", f"{np.median(a):.3g}", f"{a.min():.3g}"]
    row += [f"{memory:.3g}", f"{share:.2f}" if share else "-"]
    if not peer:
        return row + ["-"] * len(PEER_HEADER)
    return row + [f"{np.median(b):.3g}", f"{np.median(b / a):.2f}", f"{b.min() / a.min():.2f}"]


def show(repeats: int, python: str | None, tokens: Sequence[int] = TOKENS, cases: Iterable[str] = CASES) -> None:
    """Prints the table row by row, which takes minutes; `python` as in `Peer`, None to go without.

    Raises UserError if the peer fails.
    """
    header = HEADER + PEER_HEADER if python else HEADER
    line = "{:28s}" + " {:>17s}" * (len(header) - 1)
    print(line.format(*header))
    with Peer(python) if python else contextlib.nullcontext() as peer:
        for case, n, backward in itertools.product(cases, tokens, (False, True)):
            print(line.format(*measure(case, n, backward, repeats, peer)[: len(header)]), flush=True)
