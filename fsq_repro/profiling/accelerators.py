"""Peak rates and memories of accelerators, for the estimates of a dry run."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One device, as JAX counts devices; rates are peak FLOP/s of dense matrix products, without structured sparsity.

    Those of float32 arrays are as JAX computes them unless told otherwise: rounded to bfloat16 on TPUs and to TF32 on
    these GPUs (docs.jax.dev/en/latest/201/precision.html).
    """

    name: str
    bfloat16_flops: float
    float32_flops: float
    memory: int  # bytes
    source: str


ACCELERATORS = (
    # A chip has two cores, and each is a device: 123 TFLOP/s and 32 GiB a chip.
    Accelerator("TPU v3 core", 61.5e12, 61.5e12, 16 * 2**30, "cloud.google.com/tpu/docs/v3"),
    Accelerator("TPU v4", 275e12, 275e12, 32 * 2**30, "cloud.google.com/tpu/docs/v4"),
    Accelerator("TPU v5e", 197e12, 197e12, 16 * 10**9, "cloud.google.com/tpu/docs/v5e"),
    Accelerator("A100 80GB", 312e12, 156e12, 80 * 10**9, "NVIDIA A100 80GB datasheet (SXM), nvidia.com"),
    Accelerator("H100 SXM", 989.4e12, 494.7e12, 80 * 10**9, "NVIDIA H100 architecture whitepaper (SXM5), nvidia.com"),
)
