"""In which number format a machine trains fastest.

bfloat16 halves memory everywhere, but how fast its matmuls are is the processor's business: of two CPUs with the same
instruction set (AVX-512 with bfloat16 products, no AMX), one ran them at half the speed of float32 ones (166 against 320
GFLOP/s on two cores), another at four times (960 against 228). So ``auto`` measures both, in a few hundredths of a second, and
takes bfloat16 where it wins clearly. A resumed run keeps what it began with. float16 is not offered: it overflows in this
line of models.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

from vedere.errors import ConfigError

Precision = Literal["auto", "bf16", "fp32"]
CLEARLY = 1.3  # times faster; below, float32 is the better bargain: no masters, no rounding


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations.

    Args:
        precision: What was asked for.
        device: Where it will be used; ``auto`` measures matmuls there unless it is a GPU.

    Raises:
        ConfigError: an unknown precision; float16 gets the reason.
    """
    if precision in ("fp16", "float16", "half"):
        raise ConfigError("float16 overflows in these models (NaN logits on released weights); choose bf16 or fp32")
    if precision not in ("auto", "bf16", "fp32"):
        raise ConfigError(f"unknown precision '{precision}'; expected auto, bf16 or fp32")
    if precision == "auto":
        if device.type == "cuda":
            return torch.bfloat16
        gain = matmul_limit(device, torch.bfloat16) / matmul_limit(device, torch.float32)
        return torch.bfloat16 if gain > CLEARLY else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32


def matmul_limit(device: torch.device, dtype: torch.dtype, width: int = 576, hidden: int = 3072) -> float:
    """FLOP/s of the best of a few matmuls of a decoder's shape: the limit that MFU is measured against.

    Args:
        device: Where to measure.
        dtype: Of both factors.
        width: Width D of the decoder.
        hidden: Rows of its gate and up map, 2 F.
    """
    rows = 2048 if device.type == "cpu" else 16384
    x = torch.randn(rows, width, device=device).to(dtype)
    w = torch.randn(hidden, width, device=device).to(dtype)
    best = float("inf")
    for _ in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        torch.nn.functional.linear(x, w)
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * rows * width * hidden / best
