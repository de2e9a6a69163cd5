"""Finite Scalar Quantization: VQ-VAE Made Simple, reproduced in JAX and Flax."""

import contextlib
import os

__version__ = "0.1.0"

# A notebook tells the processes that it starts its backend, without which matplotlib cannot be imported where that is
# not installed. It is set here as matplotlib does it, if it can be; pictures of this package need none.
if backend := os.environ.pop("MPLBACKEND", ""):
    with contextlib.suppress(ImportError, ValueError):
        import matplotlib

        matplotlib.rcParams["backend"] = backend
    os.environ["MPLBACKEND"] = backend
