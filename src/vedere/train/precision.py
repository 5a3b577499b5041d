"""In which number format a machine trains fastest.

bfloat16 halves memory everywhere, but only matrix units make it fast: on CPUs without AMX its matmuls run at about half the
speed of float32 ones (measured: 166 against 320 GFLOP/s on two cores with AVX-512-BF16). ``auto`` therefore means bfloat16
on CUDA and on CPUs with AMX, float32 on other CPUs. float16 is not offered: it overflows in this line of models.
"""

from __future__ import annotations

import time
from typing import Literal

import torch

from vedere.errors import ConfigError

Precision = Literal["auto", "bf16", "fp32"]


def training_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of weights and activations.

    Raises:
        ConfigError: an unknown precision; float16 gets the reason.
    """
    if precision in ("fp16", "float16", "half"):
        raise ConfigError("float16 overflows in these models (NaN logits on released weights); choose bf16 or fp32")
    if precision not in ("auto", "bf16", "fp32"):
        raise ConfigError(f"unknown precision '{precision}'; expected auto, bf16 or fp32")
    if precision == "auto":
        fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
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
