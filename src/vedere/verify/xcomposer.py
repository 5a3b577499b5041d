"""XComposer folders (arXiv 2309.15112): tower, perceive sampler, picture vectors, one interleaved sequence, greedy ids.

The originals join embeddings of text and pictures by hand, so the recorded ids hold -100 where a picture stands. Here these
positions are visual ones, and the same prompt runs through the product's engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.infer.engine import Engine, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.checkpoints import load_model
from vedere.models.xcomposer import XComposer
from vedere.plan import SpanKind
from vedere.train.losses import chunked_cross_entropy, next_token_targets
from vedere.verify.check import FEATURES, LOSSES, Check, Recording

_CHUNK = 16  # prompt tokens that the engine is fed at once: pictures do not end where chunks end
_PICTURE = -100


def checks(directory: Path) -> Iterator[Check]:
    """Every recorded tensor of an XComposer folder.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read.
    """
    recording = Recording(directory)
    run = _Run(recording)
    vision = run.model.vision
    for name, compute in (
        ("vit_output", lambda: run.tower),
        ("ln_vision_output", lambda: vision.norm(run.tower)),
        ("sampler_output", lambda: run.model.sampler(vision.norm(run.tower))),
        ("image_embeds", lambda: run.model.encode(run.pixels)),
        ("inputs_embeds", lambda: run.embeds[None]),
        ("logits", lambda: run.model.decoder.logits(run.hidden)[None]),
        ("text_only_logits", run.text_only),
    ):
        if name in recording:
            yield recording.compare(name, compute, "absolute", FEATURES)
    if "loss" in recording:
        yield recording.compare("loss", run.loss, "relative", LOSSES)
    if "generated_ids" in recording:
        yield recording.compare("generated_ids", run.greedy, "mismatches")
    yield from recording.rest()


class _Run:
    """The model and its recorded sequence, computed once."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        model = load_model(recording.directory, dtype=torch.float32)
        if not isinstance(model, XComposer):
            raise CheckpointError(
                f"{recording.directory}: config.json and weights are of a {type(model).__name__}, not of XComposer"
            )
        self.model = model

    @cached_property
    def pixels(self) -> Tensor:
        return self.recording.take("pixel_values")

    @cached_property
    def tower(self) -> Tensor:
        return self.model.vision.encode(self.pixels)

    @cached_property
    def ids(self) -> Tensor:
        return self.recording.take("input_ids_with_minus100_for_image")[0].long()

    @cached_property
    def types(self) -> Tensor:
        return torch.where(self.ids == _PICTURE, int(SpanKind.VISUAL), int(SpanKind.TEXT))

    @cached_property
    def embeds(self) -> Tensor:
        return self.model.embed(self.ids.clamp_min(0), self.types, self.pixels)

    @cached_property
    def hidden(self) -> Tensor:
        return self._forward(self.embeds)

    def _forward(self, embeds: Tensor) -> Tensor:
        hidden: Tensor = self.model.decoder(embeds, torch.arange(len(embeds)), [0, len(embeds)])
        return hidden

    def text_only(self) -> Tensor:
        """Logits ``[1, L, V]`` of the language model alone."""
        ids = self.recording.take("text_only_input_ids")[0].long()
        return self.model.decoder.logits(self._forward(self.model.decoder.embed(ids)))[None]

    def loss(self) -> Tensor:
        """Mean cross-entropy over all targets, ``[1]``."""
        labels = self.recording.take("labels")[0].long()
        rows, targets = next_token_targets(labels, [0, len(labels)])
        weights = torch.ones(len(rows))
        total = chunked_cross_entropy(self.hidden[rows], self.model.decoder.head_weight, targets, weights)
        return (total / weights.sum())[None]

    def greedy(self) -> Tensor:
        """Ids ``[1, new]`` that the engine adds to the sequence."""
        new = self.recording.tensors["generated_ids"].shape[-1]
        request = Request(
            ids=self.ids.clamp_min(0),
            span_types=self.types,
            positions=torch.arange(len(self.ids)),
            pixels=self.pixels,
            sampling=SamplingParams(max_new_tokens=new),
        )
        events = Engine(self.model, chunk=_CHUNK).generate([request])
        return torch.tensor([[event.id for event in events if isinstance(event, Token)]])
