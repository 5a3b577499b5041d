"""Floating-point operations of a pack, for model FLOP utilisation (MFU).

MFU = (FLOP that the maths needs) / (seconds x limit), where the limit is the measured speed of a plain matmul of the
decoder's shape on this machine (`vedere.train.precision.matmul_limit`). Counted are matmuls: 2 FLOP a multiply-add; forward,
gradient of activations, and gradient of weights only where weights learn; the head on target rows only; attention scores
within documents. Norms, activations, optimiser and padding count as nothing, so they lower the figure; tokens of a shared
prefix (`vedere.train.prefix`) count in full although they are computed once, which raises it by their share.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from vedere.models.decoder import Decoder
from vedere.models.experts import Experts
from vedere.models.low_rank import LowRank
from vedere.models.moe import MoE


def _linear_sizes(module: nn.Module) -> tuple[int, int]:
    """(multiply-adds of a row, those whose weight learns) over all linear maps below ``module``."""
    every = learned = 0
    for child in module.modules():
        if isinstance(child, nn.Linear):
            every += child.weight.numel()
            learned += child.weight.numel() if child.weight.requires_grad else 0
        elif isinstance(child, MoE):  # a row meets some members only; the router is a linear map of its own
            for weight in (child.gate_up, child.down):
                active = weight.numel() * child.active // len(weight)
                every, learned = every + active, learned + (active if weight.requires_grad else 0)
    return every, learned


def training_flops(decoder: Decoder, borders: Sequence[int], visual: int, targets: int) -> float:
    """FLOP of one forward and backward pass.

    Args:
        decoder: The decoder; ``requires_grad`` says what learns.
        borders: Cumulative document borders.
        visual: Tokens on the visual experts.
        targets: Rows that the head sees.
    """
    tokens = borders[-1]
    total = 0.0
    every = [m for layer in decoder.layers for m in layer.modules() if isinstance(m, Experts)]
    for experts in every:
        text, text_learned = _linear_sizes(experts.text)
        if hasattr(experts, "visual"):
            seen, seen_learned = _linear_sizes(experts.visual)
            total += (tokens - visual) * (4 * text + 2 * text_learned) + visual * (4 * seen + 2 * seen_learned)
        else:
            total += tokens * (4 * text + 2 * text_learned)
        for low in experts.text.modules():  # plain LoRA
            if isinstance(low, LowRank):
                size = low.lora_A.numel() + low.lora_B.numel()
                rows = tokens - visual if hasattr(experts, "visual") else tokens
                total += rows * size * (6 if low.lora_A.requires_grad else 4)
        for low in experts.partial.values() if hasattr(experts, "partial") else ():  # on visual rows alone
            assert isinstance(low, LowRank)
            size = low.lora_A.numel() + low.lora_B.numel()
            total += visual * size * (6 if low.lora_A.requires_grad else 4)
    head = decoder.head_weight
    total += targets * head.numel() * (6 if head.requires_grad else 4)
    config = decoder.config
    pairs = sum((end - start) ** 2 / 2 for start, end in itertools.pairwise(borders))
    total += 12 * config.layers * config.heads * config.head_dim * pairs  # q k^T and weights v: 4 forward, 8 backward
    return total
