"""Quantizers: pure maths and a thin Linen module each; see `base.py` for the contract."""

from fsq_repro.quantizers.base import Quantized
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.fsq import FSQ, suggest_levels
from fsq_repro.quantizers.level_sets import level_sets
from fsq_repro.quantizers.vq import VectorQuantizer

__all__ = ["FSQ", "EmaVectorQuantizer", "Quantized", "VectorQuantizer", "level_sets", "suggest_levels"]
