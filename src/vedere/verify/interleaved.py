"""Recordings of the XComposer line: one sequence of text and pictures, -100 in the recorded ids where a picture stands.

The originals join embeddings of text and pictures by hand. Here the positions of pictures have span types, and the same prompt
runs through the product's engine, fed in chunks that cut pictures. What both generations record is here; how pixels
become features differs (`vedere.verify.xcomposer`, `vedere.verify.xcomposer2`).

Axes: T positions, N tiles, D width, V vocabulary.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property

import torch
from torch import Tensor

from vedere.infer.engine import Engine, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.vision_language import VisionLanguageModel
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
        length = len(self.ids)
        out: Tensor = self.assembly.decoder(self.embedded, torch.arange(length), [0, length], self.types)
        return out

    def logits(self) -> Tensor:
        """``[1, T, V]``."""
        return self.assembly.decoder.logits(self.hidden)[None]

    def text_only(self) -> Tensor:
        """Logits ``[1, T, V]`` of the recorded text without a picture."""
        ids = self.recording.take("text_only_input_ids")[0].long()
        return self.assembly.decoder.logits(self.assembly(ids, torch.arange(len(ids)), [0, len(ids)]))[None]

    def loss(self) -> Tensor:
        """Mean cross-entropy over all targets, ``[1]``."""
        labels = self.recording.take("labels")[0].long()
        rows, targets = next_token_targets(labels, [0, len(labels)])
        weights = torch.ones(len(rows))
        total = chunked_cross_entropy(self.hidden[rows], self.assembly.decoder.head_weight, targets, weights)
        return (total / weights.sum())[None]

    def greedy(self) -> Tensor:
        """Ids ``[1, new]`` that the engine adds to the sequence."""
        new = self.recording.tensors["generated_ids"].shape[-1]
        request = Request(
            ids=self.ids, span_types=self.types, pixels=self.pixels, sampling=SamplingParams(max_new_tokens=new)
        )
        # The originals go on beyond their trained length.
        most = max(len(self.ids) + new, self.assembly.decoder.config.context)
        events = Engine(self.assembly, chunk=_CHUNK, max_positions=most, reference=True).generate([request])
        return torch.tensor([[event.id for event in events if isinstance(event, Token)]])
