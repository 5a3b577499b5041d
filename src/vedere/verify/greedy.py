"""Greedy decoding as the originals do it when outputs are recorded: no stop ids, one sequence, a growing cache.

The engine (`vedere.infer`) does the same in batches, with sampling and limits. This loop exists because two behaviours of
the originals have no place there: a rotary base that changes in the middle of an answer (see `Runner`), and decoding without
a cache by computing the whole sequence again at every step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from vedere.models.positions import dynamic_base
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import SpanKind


class GrowingCache:
    """Keys and values of one document, grown by concatenation; a `KeyValueCache`."""

    def __init__(self) -> None:
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}

    def past(self) -> Sequence[int]:
        """Cached tokens, as a list of one."""
        return [self._keys[0].shape[2] if self._keys else 0]

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Appends ``[1, K, N, d]`` and gives everything so far."""
        if layer in self._keys:
            keys = torch.cat([self._keys[layer], keys], dim=2)
            values = torch.cat([self._values[layer], values], dim=2)
        self._keys[layer], self._values[layer] = keys, values
        return keys, values


class Runner:
    """Runs a model the way one instance of the original would have run.

    InternLM2's dynamic NTK is stateful there: the rotary table is rebuilt only when a longer input than ever before
    arrives, and stays. vedere's models have no such state, so the base in force is handed to them as a fixed one.

    Args:
        model: An assembly.
    """

    def __init__(self, model: VisionLanguageModel) -> None:
        self.model = model
        self.longest = 0

    def hidden(
        self,
        embeds_TD: Tensor,
        positions_T: Tensor,
        borders: Sequence[int],
        span_types_T: Tensor | None,
        length: int,
        cache: GrowingCache | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """`Decoder.forward` with the base that an input of ``length`` (padding and cache included) leaves in force."""
        decoder = self.model.decoder
        config = decoder.config
        self.longest = max(self.longest, length)
        if config.rope_scaling == "dynamic" and not config.v2pe:
            base = dynamic_base(
                config.rope_theta, self.longest, config.max_positions, config.rope_factor, config.head_dim
            )
            decoder.config = dataclasses.replace(config, rope_theta=base, rope_scaling="none")
        try:
            out: Tensor = decoder(embeds_TD, positions_T, borders, span_types_T, cache=cache, record=record)
            return out
        finally:
            decoder.config = config

    def greedy(
        self,
        ids_T: Tensor,
        positions_T: Tensor,
        span_types_T: Tensor,
        features: Tensor | None,
        new: int,
        cached: bool = True,
        last_logits: list[Tensor] | None = None,
    ) -> Tensor:
        """The ``new`` most probable tokens, one after the other.

        Args:
            ids_T: Prompt.
            positions_T: Its positions; new tokens follow the last one by 1, 2, ...
            span_types_T: `SpanKind` a token; new tokens are text.
            features: Visual features of exactly the prompt's places.
            new: How many.
            cached: Keep keys and values, or compute the whole sequence again at every step.
            last_logits: Receives the logits that each token was chosen from.

        Returns:
            ``[new]``.
        """
        ids, found = ids_T, []
        cache = GrowingCache() if cached else None
        embeds = self.model.place(ids_T, span_types_T, features)
        positions, types = positions_T, span_types_T
        total = len(ids)
        for _ in range(new):
            borders = [0, len(positions)]
            hidden = self.hidden(embeds, positions, borders, types, total, cache)
            logits = self.model.decoder.logits(hidden[-1])
            if last_logits is not None:
                last_logits.append(logits)
            token = logits.argmax()[None]
            found.append(token)
            total += 1
            embedded = self.model.decoder.embed(token)
            position = positions[-1:] + 1
            text = torch.full_like(types[:1], int(SpanKind.TEXT))
            if cached:
                embeds, positions, types = embedded, position, text
            else:
                embeds = torch.cat([embeds, embedded])
                positions, types = torch.cat([positions, position]), torch.cat([types, text])
        return torch.cat(found)
