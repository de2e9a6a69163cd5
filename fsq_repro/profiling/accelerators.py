"""Peak rates and memories of accelerators, for the estimates of a dry run and the utilisation of a real one."""

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

# `jax.Device.device_kind` -> the accelerator above that has its peak rates (NVIDIA's datasheets give the same ones for
# all A100, and for H100 SXM and H200 SXM; H100 PCIe and NVL are slower). Memories may differ.
KINDS = {
    "TPU v3": "TPU v3 core",
    "TPU v4": "TPU v4",
    "TPU v5 lite": "TPU v5e",
    "TPU v5e": "TPU v5e",
    "NVIDIA A100-PCIE-40GB": "A100 80GB",
    "NVIDIA A100 80GB PCIe": "A100 80GB",
    "NVIDIA A100-SXM4-40GB": "A100 80GB",
    "NVIDIA A100-SXM4-80GB": "A100 80GB",
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA H200": "H100 SXM",
}


def peak_rate(device_kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of a device for arrays of "float32" or "bfloat16"; None for a kind that is not known."""
    rates = {a.name: getattr(a, f"{dtype}_flops") for a in ACCELERATORS}
    return rates[KINDS[device_kind]] if device_kind in KINDS else None
