"""What a program costs: FLOPs, counted in what JAX traced, and bytes of collectives, read in what XLA compiled.

XLA's own count of FLOPs takes the body of a loop once, however often it runs, and the chunks of the nearest-codeword
search are such a loop; so products are counted here, and XLA's count stands beside them.
"""

import collections
import itertools
import math
import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from jax.extend import core

Program = core.Jaxpr | core.ClosedJaxpr
# Operations that are another program's, written out in its place.
CALLS = ("jit", "closed_call", "custom_jvp_call", "custom_vjp_call")


def matrix_flops(program: Program) -> int:
    """FLOPs of the matrix products and convolutions of a traced program, of all devices together.

    2 m n k for a product; for a convolution the products with padding and with the zeros between the entries of a
    dilated input are left out, as XLA counts. What the program asks for twice is counted once, since XLA merges it (a
    network's forward pass on the same images in two losses); what `jax.checkpoint` computes again counts again. Loops
    count as often as they run, and of the branches of a condition the dearest. ValueError for products in a loop whose
    number of rounds depends on the data.
    """
    numbers, known, total = itertools.count(), {}, 0

    def visit(program: Program, inputs: Sequence[Hashable]) -> list[Hashable]:
        """Adds a program's FLOPs; every value has a key, and equal keys are the same operation on the same values."""
        nonlocal total
        keys = dict(zip(program.invars, inputs, strict=True))
        keys |= {v: ("constant", id(c)) for v, c in zip(program.constvars, getattr(program, "consts", ()), strict=True)}

        def key(x: core.Var | core.Literal) -> Hashable:
            return (str(x.aval), repr(x.val)) if isinstance(x, core.Literal) else keys[x]

        for equation in program.eqns:
            name, arguments = equation.primitive.name, tuple(map(key, equation.invars))
            parts = list(_programs_within(equation))
            if name == "stop_gradient":
                results = arguments
            elif name in CALLS:
                results = visit(parts[0], arguments)
            elif parts:
                total += _flops_of_parts(equation, parts)
                results = [next(numbers) for _ in equation.outvars]
            else:
                operation = (name, str(equation.params), arguments)
                if operation not in known:
                    total += FLOPS[name](equation) if name in FLOPS else 0
                    known[operation] = [next(numbers) for _ in equation.outvars]
                results = known[operation]
            keys |= zip(equation.outvars, results, strict=True)
        return [key(x) for x in program.outvars]

    visit(program, [next(numbers) for _ in program.invars])
    return total


def _flops_of_parts(equation: core.JaxprEqn, parts: Sequence[Program]) -> int:
    """FLOPs of an operation that runs programs: a loop, a condition, what `jax.checkpoint` wraps."""
    name, flops = equation.primitive.name, [matrix_flops(part) for part in parts]
    if name == "while" and sum(flops):
        raise ValueError("the step has matrix products in a loop of unknown length, so they cannot be counted")
    if name == "cond":
        return max(flops)
    return sum(flops) * (equation.params["length"] if name == "scan" else 1)


def _programs_within(equation: core.JaxprEqn) -> Iterator[Program]:
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, Program):
                yield item


def _dot_flops(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    lhs, out = equation.invars[0].aval, equation.outvars[0].aval
    return 2 * math.prod(out.shape) * math.prod(lhs.shape[i] for i in contracted)


def _convolution_flops(equation: core.JaxprEqn) -> int:
    p = equation.params
    lhs, rhs, out = (v.aval.shape for v in (*equation.invars, *equation.outvars))
    lhs_spec, rhs_spec, out_spec = p["dimension_numbers"]  # batch or output channels, input channels, then space
    products = out[out_spec[0]] * out[out_spec[1]] * rhs[rhs_spec[1]]
    for d in range(len(p["window_strides"])):
        # Positions in the dilated input of every output's taps, less those in the padding and between the entries.
        first = np.arange(out[out_spec[2 + d]]) * p["window_strides"][d] - p["padding"][d][0]
        position = first[:, None] + np.arange(rhs[rhs_spec[2 + d]]) * p["rhs_dilation"][d]
        last = (lhs[lhs_spec[2 + d]] - 1) * p["lhs_dilation"][d]
        products *= int(np.sum((position >= 0) & (position <= last) & (position % p["lhs_dilation"][d] == 0)))
    return 2 * products


FLOPS = {"dot_general": _dot_flops, "conv_general_dilated": _convolution_flops}


_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(
    r"= (\([^()]*\)|\S+) "
    r"(all-reduce|all-gather|reduce-scatter|all-to-all|ragged-all-to-all|collective-permute|collective-broadcast)\("
)
_CALLED = re.compile(
    r"(?:body|condition|calls|to_apply|true_computation|false_computation)=%?([\w.-]+)"
    r"|branch_computations=\{([^}]*)\}"
)
_ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_ARRAY = re.compile(r"([a-z]+)(\d*)\w*\[([\d,]*)\]")


def read_collectives(hlo: str) -> dict[str, Any]:
    """Adds up the collectives in `jax.stages.Compiled.as_text`; a loop counts as often as it runs.

    Returns:
      bytes: {kind: bytes of the results on one device}, of an all-reduce its operands, of an all-gather the whole;
      loops_counted_once: how many loops have collectives but a number of rounds that depends on the data.
    """
    computations, entry, lines = {}, "", []
    for line in hlo.splitlines():
        if header := _COMPUTATION.match(line):
            lines = computations[header[2]] = []
            entry = header[2] if header[1] else entry
        else:
            lines.append(line)
    total, loops_counted_once = collections.Counter(), 0

    def add(name: str, times: int) -> bool:
        """Adds a computation's collectives and those of what it calls; returns whether there are any."""
        nonlocal loops_counted_once
        found = False
        for line in computations[name]:
            if collective := _COLLECTIVE.search(line):
                total[collective[2]] += times * _array_bytes(collective[1])
                found = True
            rounds = _ROUNDS.search(line)
            within = False
            for one, several in _CALLED.findall(line):
                for called in re.findall(r"[\w.-]+", one or several):
                    within |= add(called, times * int(rounds[1]) if rounds else times)
            if within and " while(" in line and not rounds:
                loops_counted_once += 1
            found |= within
        return found

    add(entry, 1)
    return {"bytes": dict(total), "loops_counted_once": loops_counted_once}


def _array_bytes(hlo_type: str) -> int:
    """Bytes of an array type, e.g. f32[8,16]{1,0}, or of a tuple of them; pred takes a byte."""
    arrays = _ARRAY.findall(hlo_type)
    return sum(math.prod(map(int, filter(None, dims.split(",")))) * int(bits or 8) // 8 for _, bits, dims in arrays)
