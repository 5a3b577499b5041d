"""Greedy decoding as an instance of the original does it: no stop ids, one sequence, a rotary base that has a history.

Recorded ids are compared with the product's own engine (`vedere.infer.engine`) wherever it can run them. This loop is for what
has no place there: a base that changes in the middle of an answer, prompts beyond the trained length, and decoding without a
cache by computing the whole sequence again at every step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from vedere.infer.cache import Cache, Window
from vedere.models.positions import dynamic_base
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import SpanKind


class Runner:
    """Runs a model the way one instance of the original would have run.

    InternLM2's dynamic NTK is stateful there: the rotary table is rebuilt only when a longer input than ever before
    arrives, and stays. Llama and Qwen of transformers do the same, but go back to the trained base at the first input that is
    shorter than the trained length. vedere's models have no such state, so the base in force is handed to them as a fixed one.

    Args:
        model: An assembly.
        resets: Whether the language model goes back.
    """

    def __init__(self, model: VisionLanguageModel, resets: bool = False) -> None:
        self.model = model
        self.resets = resets
        self.longest = 0

    def hidden(
        self,
        embeds_TD: Tensor,
        positions_T: Tensor,
        borders: Sequence[int],
        span_types_T: Tensor | None,
        length: int,
        cache: Window | None = None,
        record: list[Tensor] | None = None,
    ) -> Tensor:
        """`Decoder.forward` with the base that an input of ``length`` (padding and cache included) leaves in force."""
        decoder = self.model.decoder
        config = decoder.config
        self.longest = length if self.resets and length < config.max_positions else max(self.longest, length)
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
        found = []
        cache = Cache(self.model.decoder.config, capacity=len(ids_T) + new)
        embeds = self.model.place(ids_T, span_types_T, features)
        positions, types = positions_T, span_types_T
        total = len(ids_T)
        for _ in range(new):
            window = cache.window(0, [len(positions)]) if cached else None
            hidden = self.hidden(embeds, positions, [0, len(positions)], types, total, window)
            if window is not None:
                cache.commit(window)
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
