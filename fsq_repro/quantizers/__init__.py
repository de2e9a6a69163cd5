"""Quantizers: pure maths and a thin Linen module each; `base.py` has the contract, `registry.py` the names."""

from fsq_repro.quantizers.alternated_vq import AlternatedVectorQuantizer
from fsq_repro.quantizers.base import Quantized
from fsq_repro.quantizers.bsq import BSQ
from fsq_repro.quantizers.diveq import DiVeQ
from fsq_repro.quantizers.ema_restart import EmaRestartQuantizer
from fsq_repro.quantizers.ema_vq import EmaVectorQuantizer
from fsq_repro.quantizers.fsp import FSP
from fsq_repro.quantizers.fsq import FSQ, suggest_levels
from fsq_repro.quantizers.ibq import IndexBackpropagationQuantizer
from fsq_repro.quantizers.l2_vq import L2VectorQuantizer
from fsq_repro.quantizers.level_sets import level_sets
from fsq_repro.quantizers.lfq import LFQ
from fsq_repro.quantizers.product import ProductQuantizer
from fsq_repro.quantizers.qlae import QLAE
from fsq_repro.quantizers.registry import QUANTIZERS, make_quantizer, quantizer_label, suggest
from fsq_repro.quantizers.residual_fsq import ResidualFSQ
from fsq_repro.quantizers.simvq import SimVectorQuantizer
from fsq_repro.quantizers.vq import VectorQuantizer

__all__ = ["FSQ", "QUANTIZERS", "Quantized", "level_sets", "make_quantizer", "quantizer_label", "suggest_levels"]
__all__ += ["AlternatedVectorQuantizer", "DiVeQ", "EmaRestartQuantizer", "EmaVectorQuantizer"]
__all__ += ["IndexBackpropagationQuantizer", "L2VectorQuantizer", "ProductQuantizer", "SimVectorQuantizer"]
__all__ += ["BSQ", "FSP", "LFQ", "QLAE", "ResidualFSQ", "VectorQuantizer", "suggest"]
