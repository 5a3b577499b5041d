"""XComposer2 folders (arXiv 2401.16420, 2404.06512): CLIP tower, views, partial LoRA on image tokens.

The original was given whole normalised pictures, so tiles and global views of 4KHD are cut out of them here; a picture of its
siblings is one square. What the first generation records as well is in `vedere.verify.interleaved`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from vedere.errors import CheckpointError
from vedere.models.checkpoints import load_model
from vedere.models.xcomposer2 import XComposer2
from vedere.plan import HDPolicy, SpanKind, plan_media
from vedere.verify.check import FEATURES, LOSSES, Check, Recording
from vedere.verify.interleaved import Interleaved
from vedere.vision.hd import global_view

_PICTURE = re.compile(r"pixel_values\.(\d+)")


def checks(directory: Path, folder: Path | None = None) -> Iterator[Check]:
    """Every recorded tensor of a folder, with its own checkpoint or the one in ``folder``.

    Raises:
        CheckpointError: weights or recorded tensors cannot be read, or weights of another family.
    """
    recording = Recording(directory)
    folder = folder or directory
    model = load_model(folder, dtype=torch.float32)
    if not isinstance(model, XComposer2):
        raise CheckpointError(f"{folder}: config.json and weights are of a {type(model).__name__}, not of XComposer2")
    run = _Run(recording, model)
    for name, compute in (
        ("tower_last_hidden_image0", lambda: model.vision.encode(run.views[0])),
        ("vit_output", lambda: model.sequence(run.pixels, run.grids)[None]),
        ("projected_features", lambda: model.features(run.types, run.pixels)[None]),
        ("inputs_embeds", lambda: run.embedded[None]),
        ("logits", run.logits),
        ("text_only_logits", run.text_only),
    ):
        if name in recording:
            yield recording.compare(name, compute, "absolute", FEATURES)
    for name, exact in (("im_mask", run.mask), ("image_token_lengths", run.lengths), ("generated_ids", run.greedy)):
        if name in recording:
            yield recording.compare(name, exact, "mismatches")
    if "loss" in recording:
        yield recording.compare("loss", run.loss, "relative", LOSSES)
    yield from recording.rest()


class _Run(Interleaved):
    """The recorded prompt, planned and cut."""

    def __init__(self, recording: Recording, model: XComposer2) -> None:
        super().__init__(recording, model)
        self.model = model
        found = sorted((int(hit[1]), name) for name in recording.tensors if (hit := _PICTURE.fullmatch(name)))
        self.canvases = [recording.take(name)[0] for _, name in found]
        side = model.patches.tile
        self.square = model.config.views == "square"
        self.grids = [(canvas.shape[-1] // side, canvas.shape[-2] // side) for canvas in self.canvases]

    @cached_property
    def views(self) -> list[Tensor]:
        """Global and local views of each picture; the picture itself where a model takes squares."""
        if self.square:
            return [canvas[None] for canvas in self.canvases]
        side, views = self.model.patches.tile, []
        for canvas in self.canvases:
            tiles = [tile for rows in canvas.split(side, dim=-2) for tile in rows.split(side, dim=-1)]
            views.append(torch.stack([global_view(canvas, side), *tiles]))
        return views

    @cached_property
    def pixels(self) -> Tensor:
        return torch.cat(self.views)

    @cached_property
    def types(self) -> Tensor:
        """Span types ``[T]``: the plans' spans in the places of -100."""
        planned = torch.tensor([int(kind) for spans in self.spans for kind, length in spans for _ in range(length)])
        if len(planned) != int(self.image.sum()):
            raise CheckpointError(f"{int(self.image.sum())} recorded image positions, the plans have {len(planned)}")
        types = torch.full_like(self.ids, int(SpanKind.TEXT))
        types[self.image] = planned.to(types.dtype)
        return types

    @cached_property
    def spans(self) -> list[tuple[tuple[SpanKind, int], ...]]:
        """What the plan of a picture of exactly this grid says."""
        patches, found = self.model.patches, []
        if self.square:
            return [((SpanKind.VISUAL, self.model.tokens_per_tile),)] * len(self.canvases)
        for columns, rows in self.grids:
            policy = HDPolicy(tile=patches.tile, patch=patches.patch, limit=columns * rows)
            found.append(plan_media(columns * patches.tile, rows * patches.tile, policy).spans)
        return found

    def mask(self) -> Tensor:
        return (self.types != int(SpanKind.TEXT))[None]

    def lengths(self) -> Tensor:
        return torch.tensor([sum(length for _, length in spans) for spans in self.spans])
