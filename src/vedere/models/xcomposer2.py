"""InternLM-XComposer2 and its 4K form: CLIP tower, projector, InternLM2 with partial LoRA (arXiv 2401.16420, 2404.06512).

4KHD (2404.06512, sec. 3.2 and 3.3) sees a picture as one global view and a grid of local ones. Every 2 x 2 block of a view's
patches is joined on channels; the local maps are put together into one map of the whole picture; a learned vector
ends each row of either map, another stands between them (`assemble`). The projector comes last and maps these vectors as
well. The order is global, separator, local; the names in the files suggest otherwise (``plora_glb_GN`` is the separator,
``plora_sub_GN`` the row end of both maps).

XComposer2-7B and -VL take one square tile, do not merge, and have neither row ends nor separator: the same class with
``views`` ``square``. XComposer-2.5's weights are 4KHD's with tiles of 560 px.

All image positions, row ends and separators too, go through the partial LoRA of every linear map
(`DecoderConfig.partial_rank`); text does not, and so it cannot be merged. Which grid a picture has is read from its span types
(`vedere.plan.grids_of`), which the plan wrote: nothing else has to travel with the pixels.

Cost: the tower runs `TOGETHER` views at a time where no gradient is kept, so HD-65 needs no more memory than 16 views.

Axes: N views, P merged tokens of a view, C width of the tower, D width of the decoder, M positions of all pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from vedere.errors import ConfigError, PromptError
from vedere.models.attention import Backend
from vedere.models.clip_vit import ClipViT, ClipViTConfig
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.patches import Projector, pixel_unshuffle
from vedere.models.vision_language import VisionLanguageModel
from vedere.plan import grids_of
from vedere.vision.pixels import Statistics

TOGETHER = 16  # views that the tower encodes at once where no gradient is kept


@dataclass(frozen=True, kw_only=True)
class XComposer2Config:
    """Shape of a model.

    Attributes:
        vision: Vision tower; ``patches.downsample`` is the side of the merge.
        decoder: InternLM2 with partial LoRA.
        views: ``hd``: global and local views with row ends and separator; ``square``: one tile a picture.
    """

    vision: ClipViTConfig
    decoder: DecoderConfig
    views: Literal["hd", "square"] = "hd"

    def __post_init__(self) -> None:
        """Checks what no tensor shape would catch.

        Raises:
            ConfigError: an order of merged channels that the line does not have.
        """
        if self.vision.patches.unshuffle != "v2":
            raise ConfigError("XComposer2 merges row by row; set unshuffle='v2'")

    @property
    def merged_width(self) -> int:
        """Width of a merged token, which the projector takes."""
        return self.vision.patches.width * self.vision.patches.downsample**2


def assemble(views_NPC: Tensor, grids: Sequence[tuple[int, int]], row_end_C: Tensor, separator_C: Tensor) -> Tensor:
    """Merged maps of the views of pictures as their token sequence, before the projector.

    Args:
        views_NPC: For each picture its global view, then its local ones row by row.
        grids: (columns, rows) of each picture.
        row_end_C: Vector behind every row.
        separator_C: Vector between global and local map.

    Returns:
        ``[M, C]``, one picture after the other.
    """
    width = views_NPC.shape[-1]
    side = round(views_NPC.shape[1] ** 0.5)

    def closed(map_HWC: Tensor) -> Tensor:
        return torch.cat([map_HWC, row_end_C.expand(len(map_HWC), 1, width)], dim=1).flatten(0, 1)

    parts: list[Tensor] = []
    for group, (columns, rows) in zip(views_NPC.split([1 + c * r for c, r in grids]), grids, strict=True):
        whole, local = group[0].view(side, side, width), group[1:].view(rows, columns, side, side, width)
        stitched = local.transpose(1, 2).reshape(rows * side, columns * side, width)
        parts += [closed(whole), separator_C[None], closed(stitched)]
    return torch.cat(parts)


class XComposer2(VisionLanguageModel):
    """XComposer2, 4KHD, and XComposer-2.5's weights.

    Args:
        config: Shape.
        backend: Attention backend.
    """

    statistics: ClassVar[Statistics] = "clip"

    def __init__(self, config: XComposer2Config, backend: Backend = "auto") -> None:
        super().__init__(Decoder(config.decoder, backend), config.vision.patches)
        self.config = config
        self.vision = ClipViT(config.vision)
        self.projector = Projector(config.merged_width, config.decoder.hidden_size, norm=False)
        if config.views == "hd":
            self.row_end = nn.Parameter(torch.empty(config.merged_width))
            self.separator = nn.Parameter(torch.empty(config.merged_width))
            nn.init.normal_(self.row_end, std=0.02)
            nn.init.normal_(self.separator, std=0.02)

    def grids(self, span_types_T: Tensor | None) -> tuple[tuple[int, int], ...]:
        """(columns, rows) of each picture whose global view the model wants; none with square tiles.

        Raises:
            PromptError: span types that no plan of `HDPolicy` writes for these tiles.
        """
        if self.config.views == "square" or span_types_T is None:
            return ()
        return grids_of(span_types_T.tolist(), self.patches.grid // self.patches.downsample)

    def merged(self, pixels: Tensor) -> Tensor:
        """Merged maps of normalised views ``[N, 3, S, S]``, before the projector: ``[N, P, 4 C]``."""
        side = self.patches.grid
        step = len(pixels) if torch.is_grad_enabled() else TOGETHER
        return torch.cat(
            [
                pixel_unshuffle(
                    self.vision.encode(part)[:, 1:].unflatten(1, (side, side)), self.patches.downsample, "v2"
                )
                for part in pixels.split(step)
            ]
        )

    def sequence(self, pixels: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
        """Tokens of pictures before the projector, ``[M, 4 C]``, row ends and separators among them.

        Raises:
            PromptError: more or fewer views than the grids have.
        """
        merged = self.merged(pixels)
        if self.config.views == "square":
            return merged.flatten(0, 1)
        views = sum(1 + columns * rows for columns, rows in grids)
        if views != len(pixels):
            raise PromptError(
                f"{len(pixels)} views for grids of {views} (one global view a picture counted); give the views of exactly the "
                "pictures that the prompt was rendered with"
            )
        return assemble(merged, grids, self.row_end, self.separator)

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of normalised views ``[N, 3, S, S]``: ``[N, P, D]``, without row ends and separators."""
        features: Tensor = self.projector(self.merged(pixels))
        return features

    def features(self, span_types_T: Tensor | None, pixels: Tensor) -> Tensor:
        """Features of all image positions of the prompt, ``[M, D]``."""
        features: Tensor = self.projector(self.sequence(pixels, self.grids(span_types_T)))
        return features
