"""One more token for every answer in progress: `Decoder.forward` without what a pass of single text tokens does not need.

Decoding reads every weight once a token, which is memory's business; but between the linear maps a general pass spends as much
time again on choosing experts, laying out documents and looking up submodules. Here these are settled once a call of the
engine, and a layer is twenty operations in a row; only a mixture of experts is asked as it stands.

The step holds functions and tensors of the modules as they are when it is made: it is made anew for every call, because
adapters and forms of the weights may change between calls.

Axes: S slots, D width, H heads, K key-value heads, J = H + 2 K, d head width, M all tokens so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vedere.infer.cache import Window
from vedere.models.attention import AttentionExpert
from vedere.models.decoder import Decoder, DecoderConfig, DecoderLayer
from vedere.models.layers import RMSNorm, SwiGLU
from vedere.models.quantized import QuantLinear

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class _Layer:
    """What a layer does to text tokens."""

    attention_norm: Map
    qkv: Map
    heads_norm: Map | None
    out: Map
    ffn_norm: Map
    ffn: Map


def _norm(norm: RMSNorm) -> Map:
    """`RMSNorm.reference`; the scale of a single row on a CPU as a number, which makes half the operations."""
    weight, width, eps = norm.weight, len(norm.weight), norm.eps
    if weight.device.type != "cpu" or weight.dtype == torch.float64:
        return norm.reference

    def normed(x: Tensor) -> Tensor:
        if len(x) > 1:
            return norm.reference(x)
        length = torch.linalg.vector_norm(x, dtype=torch.float32).item()
        scale: float = (length * length / width + eps) ** -0.5
        return (x * scale).mul_(weight)  # torch multiplies by a number in float32 and rounds once

    return normed


def _linear(linear: nn.Module) -> Map:
    return linear.ready() if isinstance(linear, QuantLinear) else linear


def _heads_norm(attention: AttentionExpert, config: DecoderConfig) -> Map | None:
    """Norm of every query and key head, ``[S, H + K, d]``, in one pass."""
    if not attention.qk_norm:
        return None
    query, key = attention.q_norm, attention.k_norm
    weight = torch.cat([query.weight.expand(config.heads, -1), key.weight.expand(config.kv_heads, -1)])
    return lambda qk: F.rms_norm(qk, (config.head_dim,), None, query.eps) * weight


def _ffn(ffn: nn.Module) -> Map:
    if not isinstance(ffn, SwiGLU):
        return ffn
    gate_up, down = _linear(ffn.gate_up), _linear(ffn.down)

    def fed(x: Tensor) -> Tensor:
        gate, up = gate_up(x).chunk(2, -1)
        return down(F.silu(gate).mul_(up))

    return fed


def _of(layer: DecoderLayer, config: DecoderConfig) -> _Layer:
    attention = layer.attention.text
    return _Layer(
        attention_norm=_norm(layer.attention_norm),
        qkv=_linear(attention.qkv),
        heads_norm=_heads_norm(attention, config),
        out=_linear(attention.out),
        ffn_norm=_norm(layer.ffn_norm),
        ffn=_ffn(layer.ffn.text),
    )


class TokenStep:
    """The step of one model, as it is now.

    Args:
        decoder: Any decoder.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder
        self.layers = [_of(cast(DecoderLayer, layer), decoder.config) for layer in decoder.layers]
        self.norm = _norm(decoder.norm)

    def __call__(
        self, ids_S: Tensor, positions_S: Tensor, window: Window, lengths: Sequence[float] | None = None
    ) -> Tensor:
        """Hidden states ``[S, D]`` after the final norm; arguments as of `Decoder.forward`."""
        decoder, config, slots = self.decoder, self.decoder.config, len(ids_S)
        x = decoder.embed(ids_S)
        heads, turned = config.heads, config.heads + config.kv_heads
        half, rows = config.head_dim // 2, (slots, turned + config.kv_heads, config.head_dim)
        grouped = (slots, config.kv_heads, heads // config.kv_heads, config.head_dim)
        stored = (slots, config.kv_heads, 1, config.head_dim)
        cos, sin = decoder.rotary(positions_S, range(slots + 1), x.dtype, lengths)
        cos, sin = cos[:, None], torch.cat([-sin[:, :half], sin[:, half:]], -1)[:, None]  # signs of rotate-half
        mask = _mask(window, x) if slots > 1 else None
        for index, layer in enumerate(self.layers):
            qkv = layer.qkv(layer.attention_norm(x)).view(rows)
            qk = qkv[:, :turned]
            if layer.heads_norm is not None:
                qk = layer.heads_norm(qk)
            qk = torch.addcmul(qk * cos, qk.roll(half, -1), sin).to(x.dtype)
            keys, values = window.extend(index, qk[:, heads:].view(stored), qkv[:, turned:].view(stored))
            # the heads of a group are the queries of their shared keys: nothing is expanded
            mixed = F.scaled_dot_product_attention(qk[:, :heads].view(grouped), keys, values, attn_mask=mask)
            x = x + layer.out(mixed.view(slots, -1))
            x = x + layer.ffn(layer.ffn_norm(x))
        return self.norm(x)


def _mask(window: Window, like: Tensor) -> Tensor:
    """0 where a slot has a token, minus infinity beyond its end: ``[S, 1, 1, M]``."""
    last = torch.tensor(window.past(), device=like.device)[:, None]
    seen = torch.arange(window.total, device=like.device)[None] <= last
    return like.new_zeros(seen.shape).masked_fill_(~seen, -math.inf)[:, None, None]
