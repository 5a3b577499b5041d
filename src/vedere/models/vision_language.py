"""What every assembly of this line does with ids, tiles and spans, written once.

An assembly embeds ids, encodes tiles into features, puts the features into their places, and runs the decoder. The number
of places comes from the plan and the number of features from the pixels; where they differ, it is an error here, never a
warning (the originals warn, fill what fits and zero the loss).

Axes: T tokens, N tiles, P tokens a tile, D width.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from vedere.errors import PromptError
from vedere.models.attention import KeyValueCache
from vedere.models.decoder import Decoder
from vedere.models.patches import PatchConfig
from vedere.plan import SpanKind
from vedere.vision.pixels import Statistics


class VisionLanguageModel(nn.Module, abc.ABC):
    """Base of the assemblies.

    Args:
        decoder: Language model.
        patches: Shape of the visual tokens.

    Attributes:
        statistics: How the pixels that it was trained on are normalised; a folder's own ``statistics`` go before.
    """

    statistics: ClassVar[Statistics] = "imagenet"

    def __init__(self, decoder: Decoder, patches: PatchConfig) -> None:
        super().__init__()
        self.decoder = decoder
        self.patches = patches

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the weights."""
        return self.decoder.embed.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights live."""
        return self.decoder.embed.weight.device

    @property
    def tokens_per_tile(self) -> int:
        """Features that `encode` makes of a tile."""
        return self.patches.tokens_per_tile

    @abc.abstractmethod
    def encode(self, pixels: Tensor) -> Tensor:
        """Features of normalised tiles ``[N, 3, S, S]``: ``[N, P, D]``."""

    def grids(self, span_types_T: Tensor | None) -> tuple[tuple[int, int], ...]:
        """(columns, rows) of each picture whose global view stands before its tiles; none but under 4KHD."""
        return ()

    def features(self, span_types_T: Tensor | None, pixels: Tensor) -> Tensor:
        """Features of normalised tiles for all image positions of ``span_types_T``, in their order."""
        return self.encode(pixels)

    def embed(self, ids_T: Tensor, span_types_T: Tensor | None = None, pixels: Tensor | None = None) -> Tensor:
        """Embedded tokens with visual features in their places.

        Args:
            ids_T: Token ids.
            span_types_T: `SpanKind` a token; None means text only.
            pixels: Normalised tiles ``[N, 3, S, S]`` in token order, global views included, or None.

        Returns:
            ``[T, D]``.

        Raises:
            PromptError: more or fewer features than visual places.
        """
        features = None
        if pixels is not None and len(pixels):
            features = self.features(span_types_T, pixels.to(self.device, self.dtype))
        return self.place(ids_T, span_types_T, features)

    def place(self, ids_T: Tensor, span_types_T: Tensor | None, features: Tensor | None) -> Tensor:
        """Like `embed`, with features ``[N, P, D]`` (or ``[M, D]``) already encoded."""
        embedded: Tensor = self.decoder.embed(ids_T)
        places = 0 if span_types_T is None else int((span_types_T != int(SpanKind.TEXT)).sum())
        found = 0 if features is None else features.numel() // features.shape[-1]
        if places != found:
            raise PromptError(
                f"{places} visual positions for {found} visual features ({self.tokens_per_tile} a tile); "
                "give the tiles of exactly the pictures that the prompt was rendered with"
            )
        if features is None or span_types_T is None:
            return embedded
        where = (span_types_T != int(SpanKind.TEXT)).nonzero().squeeze(1)
        return embedded.index_copy(0, where, features.reshape(-1, features.shape[-1]).to(embedded.dtype))

    def forward(
        self,
        ids_T: Tensor,
        positions_T: Tensor,
        segments: Tensor | Sequence[int],
        span_types_T: Tensor | None = None,
        pixels: Tensor | None = None,
        cache: KeyValueCache | None = None,
        rows_M: Tensor | None = None,
    ) -> Tensor:
        """Hidden states ``[T, D]`` (or ``[M, D]``) of packed documents; arguments as in `embed` and `Decoder.forward`."""
        hidden: Tensor = self.decoder(
            self.embed(ids_T, span_types_T, pixels), positions_T, segments, span_types_T, cache=cache, rows_M=rows_M
        )
        return hidden
