"""Quantizers: pure maths and a thin Linen module each; `base.py` has the contract, `registry.py` the names."""

from fsq_repro.quantizers.base import Quantized
from fsq_repro.quantizers.bsq import BSQ
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.fsp import FSP
from fsq_repro.quantizers.fsq import FSQ, suggest_levels
from fsq_repro.quantizers.level_sets import level_sets
from fsq_repro.quantizers.lfq import LFQ
from fsq_repro.quantizers.qlae import QLAE
from fsq_repro.quantizers.registry import QUANTIZERS, make_quantizer, quantizer_label, suggest
from fsq_repro.quantizers.residual_fsq import ResidualFSQ
from fsq_repro.quantizers.vq import VectorQuantizer

__all__ = ["BSQ", "FSP", "FSQ", "LFQ", "QLAE", "QUANTIZERS", "EmaVectorQuantizer", "Quantized", "ResidualFSQ"]
__all__ += ["VectorQuantizer", "level_sets", "make_quantizer", "quantizer_label", "suggest", "suggest_levels"]
