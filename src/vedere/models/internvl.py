"""InternVL 1.5 to 3.5: InternViT, 2 x 2 unshuffle, projector, decoder (InternVL3: arXiv 2504.10479, sec. 2.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vedere.models.attention import Backend
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.intern_vit import InternViT, InternViTConfig
from vedere.models.patches import Projector, pixel_unshuffle
from vedere.models.vision_language import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class InternVLConfig:
    """Shape of a modular model.

    Attributes:
        vision: Vision tower.
        decoder: Language model.
    """

    vision: InternViTConfig
    decoder: DecoderConfig


class InternVL(VisionLanguageModel):
    """Modular vision-language model.

    Args:
        config: Shape.
        backend: Attention backend.
    """

    def __init__(self, config: InternVLConfig, backend: Backend = "auto") -> None:
        patches = config.vision.patches
        super().__init__(Decoder(config.decoder, backend), patches)
        self.config = config
        self.vision = InternViT(config.vision)
        self.projector = Projector(patches.width * patches.downsample**2, config.decoder.hidden_size)

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of normalised tiles ``[N, 3, S, S]``: ``[N, P, D]``; the class token is dropped after the tower."""
        patches = self.patches
        grid = (pixels.shape[-2] // patches.patch, pixels.shape[-1] // patches.patch)
        states = self.vision.encode(pixels)[:, 1:].unflatten(1, grid)
        features: Tensor = self.projector(pixel_unshuffle(states, patches.downsample, patches.unshuffle))
        return features
