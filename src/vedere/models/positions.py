"""Positions: plain, fractional (V2PE), and the rotary tables made from them, dynamic NTK included.

V2PE (InternVL3, arXiv 2504.10479, sec. 2.1, eq. 4-5; 2412.09616): text advances by 1, visual tokens by delta = k/256.
As the released code does it, the t-th token of an image stands at p(<img>) + t * delta over all its tiles, and the token
after the image at ceil(last) + 1. Delta 1 therefore equals plain positions. A forward pass takes positions as data, so
nothing here is stateful, and keys in a cache keep the absolute position that they were rotated with.

Dynamic NTK (InternLM2's ``rope_scaling: dynamic``): once a document is longer than the trained length M, its base grows to
base * (s L / M - (s - 1)) ^ (d / (d - 2)). The original rebuilds one table for all whenever a longer input arrives; here L
is the length of each document, so that packing stays isolated. V2PE replaces the scaling (as in the original).

Axes: T tokens, d head width.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from vedere.errors import ConfigError

V2PE_DELTAS = tuple(Fraction(1, 2**k) for k in range(9))  # 1, 1/2, ..., 1/256 (eq. 5)


def v2pe_deltas(mode: str, blocks: int, delta: Fraction | float = 1, rng: random.Random | None = None) -> list[float]:
    """One delta for each image block of a document.

    Args:
        mode: ``default`` (plain positions), ``v2pe_fix`` (the given delta) or ``v2pe_rnd`` (drawn for each block).
        blocks: Number of ``<img>`` blocks; each video frame is a block of its own.
        delta: The fixed delta, in (0, 1].
        rng: Source of the draws of ``v2pe_rnd``.

    Raises:
        ConfigError: an unknown mode, a delta outside (0, 1], or no ``rng`` to draw from.
    """
    if mode == "default":
        return [1.0] * blocks
    if mode == "v2pe_fix":
        if not 0 < delta <= 1:
            raise ConfigError(f"V2PE delta {delta} is outside (0, 1]; the paper's set is 1, 1/2, ..., 1/256")
        return [float(delta)] * blocks
    if mode == "v2pe_rnd":
        if rng is None:
            raise ConfigError("mode 'v2pe_rnd' draws a delta for each image: give a random.Random as rng")
        return [float(rng.choice(V2PE_DELTAS)) for _ in range(blocks)]
    raise ConfigError(f"unknown position mode '{mode}'; expected default, v2pe_fix or v2pe_rnd")


def document_positions(length: int, blocks: Sequence[tuple[int, int]], deltas: Sequence[float]) -> Tensor:
    """Positions of one document.

    Args:
        length: Tokens T of the document.
        blocks: (start, length) of each image block, ascending; a block is what stands between ``<img>`` and ``</img>``.
        deltas: One delta a block.

    Returns:
        ``[T]``, int64 if all deltas are 1, else float32.
    """
    if len(blocks) != len(deltas):
        raise ConfigError(f"{len(deltas)} deltas for {len(blocks)} image blocks; expected one each")
    if all(delta == 1 for delta in deltas):
        return torch.arange(length)
    positions = torch.empty(length, dtype=torch.float64)
    place, next_position = 0, 0
    for (start, size), delta in zip(blocks, deltas, strict=True):
        text = start - place
        positions[place:start] = torch.arange(next_position, next_position + text, dtype=torch.float64)
        before = next_position + text - 1  # position of <img>
        positions[start : start + size] = before + delta * torch.arange(1, size + 1, dtype=torch.float64)
        next_position = math.ceil(float(positions[start + size - 1])) + 1
        place = start + size
    positions[place:] = torch.arange(next_position, next_position + length - place, dtype=torch.float64)
    return positions.float()


def inverse_frequencies(head_dim: int, theta: float) -> Tensor:
    """``theta^(-2i/d)`` for i = 0 .. d/2 - 1 in float32: ``[d/2]``."""
    return 1.0 / (theta ** (torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim))


def dynamic_base(theta: float, length: float, trained: int, factor: float, head_dim: int) -> float:
    """Base of a document of ``length`` positions under dynamic NTK; ``theta`` itself up to the trained length."""
    if length <= trained:
        return theta
    return float(theta * ((factor * length / trained) - (factor - 1)) ** (head_dim / (head_dim - 2)))


def rotary_table(
    positions: Tensor,
    head_dim: int,
    theta: float,
    dtype: torch.dtype,
    frequencies: Tensor | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine tables; angles in float32, cast last.

    Args:
        positions: ``[T]``, integer or fractional.
        head_dim: d.
        theta: Rotary base.
        dtype: Of the result.
        frequencies: Inverse frequencies in place of the base's own, ``[d/2]`` or ``[T, d/2]`` (`vedere.models.rope_scaling`).
        scale: Multiplies both tables.

    Returns:
        (cos, sin), each ``[T, d]`` (two equal halves: rotate-half convention).
    """
    if frequencies is None:
        frequencies = inverse_frequencies(head_dim, theta).to(positions.device)
    angles = positions.float()[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    cos, sin = angles.cos(), angles.sin()
    if scale != 1:
        cos, sin = cos * scale, sin * scale
    return cos.to(dtype), sin.to(dtype)


class _Rotation(torch.autograd.Function):
    """The rotation and its gradient (the rotation back) in three passes over memory instead of six."""

    @staticmethod
    def forward(ctx: Any, x_THd: Tensor, cos_T1d: Tensor, sin_T1d: Tensor) -> Tensor:
        ctx.save_for_backward(cos_T1d, sin_T1d)
        return turn(x_THd, cos_T1d, sin_T1d, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turn(grads[0], cos, sin, -1), None, None


def turn(x: Tensor, cos: Tensor, sin: Tensor, sign: int, out: Tensor | None = None) -> Tensor:
    """Rotates by the angles of a table, or back with ``sign`` -1; written into ``out`` if that is given."""
    half = x.shape[-1] // 2
    out = torch.mul(x, cos, out=out)
    out[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-sign)
    out[..., half:].addcmul_(x[..., :half], sin[..., half:], value=sign)
    return out


def rotate(x_THd: Tensor, cos_Td: Tensor, sin_Td: Tensor) -> Tensor:
    """Rotates heads: ``x * cos + rotate_half(x) * sin``, in the dtype of the table, result in the dtype of ``x``."""
    cos, sin = cos_Td[:, None], sin_Td[:, None]
    if torch.is_grad_enabled() and x_THd.requires_grad and x_THd.dtype == cos.dtype:
        out: Tensor = _Rotation.apply(x_THd, cos, sin)  # type: ignore[no-untyped-call]
        return out
    return rotate_plainly(x_THd, cos, sin)


def rotate_plainly(x_THd: Tensor, cos_T1d: Tensor, sin_T1d: Tensor) -> Tensor:
    """The readable form of `rotate`; a test holds both together."""
    first, second = x_THd.chunk(2, dim=-1)
    return (x_THd * cos_T1d + torch.cat([-second, first], dim=-1) * sin_T1d).to(x_THd.dtype)
