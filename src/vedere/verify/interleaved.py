"""Recordings of the XComposer line: one sequence of text and pictures, -100 in the recorded ids where a picture stands.

The originals join embeddings of text and pictures by hand. Here the positions of pictures have span types, and the same prompt
runs through the product's engine, fed in chunks that cut pictures. What both generations record is here; how pixels
become features differs (`vedere.verify.xcomposer`, `vedere.verify.xcomposer2`).

The originals keep their rotary tables, made for the longest input so far. A recording is taken as of one instance that ran the
sequence, then the text alone, then the sequence growing token by token without a cache; where dynamic NTK is in force for that,
the growing runs so here as well, because an engine's cache keeps keys as they were rotated.

Axes: T positions, N tiles, D width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from vedere.infer.engine import Engine, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.rope_scaling import RotaryState, turning_length
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import SpanKind
from vedere.train.losses import chunked_cross_entropy, next_token_targets
from vedere.verify.check import Recording

_CHUNK = 16  # prompt tokens that the engine is fed at once: pictures do not end where chunks end


class Interleaved(ABC):
    """A model and its recorded sequence, each part computed once.

    Args:
        recording: The recorded tensors.
        model: The assembly.
    """

    def __init__(self, recording: Recording, model: VisionLanguageModel) -> None:
        self.recording, self.assembly = recording, model
        self.history = RotaryState(model.decoder.config)

    @cached_property
    def image(self) -> Tensor:
        """Whether a position ``[T]`` is of a picture."""
        return self.recording.take("input_ids_with_minus100_for_image")[0] < 0

    @cached_property
    def ids(self) -> Tensor:
        """Ids ``[T]``, 0 in image positions."""
        return self.recording.take("input_ids_with_minus100_for_image")[0].long().clamp_min(0)

    @property
    @abstractmethod
    def types(self) -> Tensor:
        """Span types ``[T]``."""

    @property
    @abstractmethod
    def pixels(self) -> Tensor:
        """Normalised tiles of all pictures ``[N, 3, S, S]``."""

    @cached_property
    def embedded(self) -> Tensor:
        """The sequence as the decoder gets it, ``[T, D]``."""
        return self.assembly.embed(self.ids, self.types, self.pixels)

    @cached_property
    def hidden(self) -> Tensor:
        """Last hidden states ``[T, D]``."""
        return self._decoded(self.embedded, self.types)

    def _decoded(self, embeds_TD: Tensor, types_T: Tensor | None) -> Tensor:
        length = len(embeds_TD)
        out: Tensor = self.assembly.decoder(
            embeds_TD, torch.arange(length), [0, length], types_T, lengths=[self.history.grow(length)]
        )
        return out

    def logits(self) -> Tensor:
        """``[1, T, V]``."""
        return self.assembly.decoder.logits(self.hidden)[None]

    def text_only(self) -> Tensor:
        """Logits ``[1, T, V]`` of the recorded text without a picture."""
        ids = self.recording.take("text_only_input_ids")[0].long()
        _ = self.hidden  # what the instance had seen before
        return self.assembly.decoder.logits(self._decoded(self.assembly.embed(ids), None))[None]

    def loss(self) -> Tensor:
        """Mean cross-entropy over all targets, ``[1]``."""
        labels = self.recording.take("labels")[0].long()
        rows, targets = next_token_targets(labels, [0, len(labels)])
        weights = torch.ones(len(rows))
        total = chunked_cross_entropy(self.hidden[rows], self.assembly.decoder.head_weight, targets, weights)
        return (total / weights.sum())[None]

    def greedy(self) -> Tensor:
        """Ids ``[1, new]`` that the engine adds to the sequence; without a cache where the rotary base changes on the way."""
        new = self.recording.tensors["generated_ids"].shape[-1]
        turn = turning_length(self.assembly.decoder.config)
        if turn is not None and len(self.ids) + new > turn:
            return self._grown(new)
        request = Request(
            ids=self.ids, span_types=self.types, pixels=self.pixels, sampling=SamplingParams(max_new_tokens=new)
        )
        # The originals go on beyond their trained length.
        most = max(len(self.ids) + new, self.assembly.decoder.config.context)
        events = Engine(self.assembly, chunk=_CHUNK, max_positions=most, reference=True).generate([request])
        return torch.tensor([[event.id for event in events if isinstance(event, Token)]])

    def _grown(self, new: int) -> Tensor:
        """The same ids, each by a pass over everything before it."""
        embeds, types, found = self.embedded, self.types, list[int]()
        hidden = self.hidden
        for _ in range(new):
            found.append(int(self.assembly.decoder.logits(hidden[-1]).argmax()))
            embeds = torch.cat([embeds, self.assembly.embed(torch.tensor(found[-1:]))])
            types = torch.cat([types, types.new_tensor([int(SpanKind.TEXT)])])
            hidden = self._decoded(embeds, types)
        return torch.tensor([found])
