"""XComposer folders (arXiv 2309.15112): tower, perceive sampler, picture vectors, one interleaved sequence, greedy ids.

What the second generation records as well is in `vedere.verify.interleaved`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.checkpoints import load_model
from vedere.models.xcomposer import XComposer
from vedere.plan import SpanKind
from vedere.verify.check import FEATURES, LOSSES, Check, Recording
from vedere.verify.interleaved import Interleaved


def checks(directory: Path, folder: Path | None = None) -> Iterator[Check]:
    """Every recorded tensor of an XComposer folder, with its own checkpoint or the one in ``folder``.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read.
    """
    recording = Recording(directory)
    run = _Run(recording, folder or directory)
    vision = run.model.vision
    for name, compute in (
        ("vit_output", lambda: run.tower),
        ("ln_vision_output", lambda: vision.norm(run.tower)),
        ("sampler_output", lambda: run.model.sampler(vision.norm(run.tower))),
        ("image_embeds", lambda: run.model.encode(run.pixels)),
        ("inputs_embeds", lambda: run.embedded[None]),
        ("logits", run.logits),
        ("text_only_logits", run.text_only),
    ):
        if name in recording:
            yield recording.compare(name, compute, "absolute", FEATURES)
    if "loss" in recording:
        yield recording.compare("loss", run.loss, "relative", LOSSES)
    if "generated_ids" in recording:
        yield recording.compare("generated_ids", run.greedy, "mismatches")
    yield from recording.rest()


class _Run(Interleaved):
    """One tile a picture."""

    def __init__(self, recording: Recording, folder: Path) -> None:
        model = load_model(folder, dtype=torch.float32)
        if not isinstance(model, XComposer):
            raise CheckpointError(
                f"{folder}: config.json and weights are of a {type(model).__name__}, not of XComposer"
            )
        super().__init__(recording, model)
        self.model = model

    @cached_property
    def pixels(self) -> Tensor:
        return self.recording.take("pixel_values")

    @cached_property
    def tower(self) -> Tensor:
        return self.model.vision.encode(self.pixels)

    @cached_property
    def types(self) -> Tensor:
        return torch.where(self.image, int(SpanKind.VISUAL), int(SpanKind.TEXT))
