"""Rotary frequencies of language models that were stretched beyond the length they were trained at.

The kinds are those of released configs, by the names of their ``rope_scaling``; what each does at a document of L positions:

* ``dynamic`` (InternLM2, and the Qwen2.5 of InternVL2.5 and 3): up to M positions nothing, then NTK with a base that grows
  with L (`vedere.models.positions.dynamic_base`). Qwen2's code of the time ignored the field; below M all agree.
* ``linear``: every position divided by the factor.
* ``llama3``: low frequencies divided by the factor, high ones kept, a linear blend between; independent of L.
* ``longrope`` (Phi-3; early files say ``su``): every frequency has its own divisor, one list for L up to the length O of
  pre-training, another beyond it; cosine and sine are scaled by sqrt(1 + ln(M / O) / ln O) in both cases.

* ``yarn`` (arXiv 2309.00071; what the cards of Qwen2.5 and Qwen3 say to switch on for long inputs): like ``llama3``, with the
  blend along the numbers of the frequencies; cosine and sine are scaled by 1 + ln(factor) / 10. Independent of L.

What depends on L is computed for each document by its own length, so that packing stays isolated (the originals take the
longest of a batch). An answer that grows past that length keeps the keys it has as they were rotated, as the releases' own
code does (`RotaryState`); transformers computes Phi-3's again at that point, so its answers differ there. Other kinds
are refused: no release of this line uses them.

Axes: T tokens, d head width.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from vedere.errors import ConfigError
from vedere.models.positions import dynamic_base, inverse_frequencies

if TYPE_CHECKING:
    from vedere.models.decoder import DecoderConfig

Scaling = Literal["none", "dynamic", "linear", "llama3", "longrope", "yarn"]


def check_scaling(config: DecoderConfig) -> None:
    """Refuses fields that do not fit the kind of scaling.

    Raises:
        ConfigError: lists of another length than half a head, a missing trained length, or factors that are no factors.
    """
    kind, half = config.rope_scaling, config.head_dim // 2
    if kind == "longrope" and not (len(config.rope_short) == len(config.rope_long) == half):
        raise ConfigError(
            f"longrope has {len(config.rope_short)} short and {len(config.rope_long)} long factors; expected {half} each, one "
            f"for every frequency of a head of {config.head_dim}"
        )
    if kind in ("llama3", "longrope", "yarn") and not 2 <= config.rope_original_positions <= config.max_positions:
        raise ConfigError(
            f"{kind} was pre-trained at {config.rope_original_positions} positions; expected 2 to max_positions "
            f"{config.max_positions} (original_max_position_embeddings)"
        )
    if kind in ("llama3", "yarn") and not 0 < config.rope_low_frequency < config.rope_high_frequency:
        raise ConfigError(
            f"{kind} blends between frequency factors {config.rope_low_frequency} and {config.rope_high_frequency}; expected "
            "0 < low < high"
        )
    numbers = [config.rope_factor, config.rope_theta, *config.rope_short, *config.rope_long]
    if any(not (math.isfinite(number) and number > 0) for number in numbers):
        raise ConfigError("rope_theta and all rope factors must be positive numbers")


def table_scale(config: DecoderConfig) -> float:
    """What cosine and sine are multiplied by."""
    if config.rope_scaling not in ("longrope", "yarn"):
        return 1.0
    if config.rope_attention is not None:
        return config.rope_attention
    if config.rope_scaling == "yarn":
        return 1 + 0.1 * math.log(config.rope_factor) if config.rope_factor > 1 else 1.0
    stretch = config.max_positions / config.rope_original_positions
    return math.sqrt(1 + math.log(stretch) / math.log(config.rope_original_positions)) if stretch > 1 else 1.0


def frequencies(config: DecoderConfig, length: float) -> Tensor:
    """Inverse frequencies of a document of ``length`` positions, ``[d/2]`` float32, on the CPU."""
    plain = inverse_frequencies(config.head_dim, config.rope_theta)
    if config.rope_scaling == "dynamic":
        base = dynamic_base(config.rope_theta, length, config.max_positions, config.rope_factor, config.head_dim)
        return inverse_frequencies(config.head_dim, base)
    if config.rope_scaling == "linear":
        return plain / config.rope_factor
    if config.rope_scaling == "longrope":
        divisors = config.rope_long if length > config.rope_original_positions else config.rope_short
        exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
        return 1.0 / (torch.tensor(divisors, dtype=torch.float32) * config.rope_theta**exponents)
    if config.rope_scaling == "llama3":
        low, high = config.rope_low_frequency, config.rope_high_frequency
        turns = config.rope_original_positions * plain / (2 * math.pi)  # whole turns within the trained length
        kept = ((turns - low) / (high - low)).clamp(0, 1)
        return (1 - kept) * plain / config.rope_factor + kept * plain
    if config.rope_scaling == "yarn":
        first, last = (_place(config, turns) for turns in (config.rope_high_frequency, config.rope_low_frequency))
        low, high = max(math.floor(first), 0), min(math.ceil(last), config.head_dim - 1)
        steps = torch.arange(config.head_dim // 2, dtype=torch.float32)
        kept = 1 - ((steps - low) / (high - low if high != low else 0.001)).clamp(0, 1)
        return (1 - kept) * plain / config.rope_factor + kept * plain
    return plain


def _place(config: DecoderConfig, turns: float) -> float:
    """Number, with a fraction, of the frequency that turns so often within the trained length."""
    wave = config.rope_original_positions / (2 * math.pi * turns)
    return config.head_dim * math.log(wave) / (2 * math.log(config.rope_theta))


def turning_length(config: DecoderConfig) -> int | None:
    """Length beyond which the frequencies of a growing document change; None if they never do."""
    return {"dynamic": config.max_positions, "longrope": config.rope_original_positions}.get(config.rope_scaling)


class RotaryState:
    """The length that rotary frequencies are made for, while a sequence grows token by token.

    The originals keep their tables between calls. ``dynamic`` goes by the longest input so far: InternLM2 for good, Llama and
    Qwen of transformers until an input is shorter than the trained length. ``longrope`` goes by the input at hand. A new state
    is an instance that has seen nothing; keys that are in a cache stay rotated as they were in either case.

    Args:
        config: The decoder.
        resets: Whether a short input brings the trained base back.
    """

    def __init__(self, config: DecoderConfig, resets: bool = False) -> None:
        self.config, self.resets = config, resets
        self.length = 0.0

    def grow(self, length: float) -> float:
        """The length in force for a pass after which a sequence has ``length`` positions, prompt and cache included."""
        forgets = self.config.rope_scaling != "dynamic" or (self.resets and length < self.config.max_positions)
        self.length = length if forgets else max(self.length, length)
        return self.length


def packed_frequencies(
    config: DecoderConfig, positions_T: Tensor, borders: Sequence[int], lengths: Sequence[float] | None = None
) -> Tensor | None:
    """Inverse frequencies of packed documents: ``[d/2]`` for all, ``[T, d/2]`` where they may differ, None for plain ones.

    ``lengths`` are those in force (`RotaryState`), one a document; None: each document's own.
    """
    if config.rope_scaling == "none":
        return None
    turn = turning_length(config)
    longest = max(lengths) if lengths is not None else float(positions_T.max()) + 1
    if turn is None or longest <= turn:
        return None if config.rope_scaling == "dynamic" else frequencies(config, 1).to(positions_T.device)
    documents = list(itertools.pairwise(borders))
    if lengths is None:
        lengths = [float(positions_T[start:end].max()) + 1 for start, end in documents]
    rows = torch.stack([frequencies(config, length) for length in lengths])
    sizes = torch.tensor([end - start for start, end in documents])
    return rows.repeat_interleave(sizes, dim=0).to(positions_T.device)
