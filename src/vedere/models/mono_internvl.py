"""Mono-InternVL (arXiv 2410.08202; 1.5: 2507.12566): a decoder that reads patches without a vision tower.

``x_v = MLP(PatchEmbed(I) + PE)`` (eq. 1): convolution, absolute positions, 2 x 2 unshuffle, projector; 256 tokens for a tile
of 448 px. Each decoder layer holds a visual feed-forward expert, and optionally visual attention experts (1.5). float16 is
refused: the released weights overflow in it. A pretrained stem before the patches is an option of ours (`vedere.models.stem`).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vedere.errors import ConfigError
from vedere.models.attention import Backend
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.experts import Experts
from vedere.models.patches import PatchConfig, PatchEmbedding, Projector, pixel_unshuffle
from vedere.models.reader import Reader
from vedere.models.readings import read_tiles
from vedere.models.stem import Stem
from vedere.models.transcript import Cut, Reading, Transcriber, with_pieces
from vedere.models.vision_language import VisionLanguageModel


@dataclass(frozen=True, kw_only=True)
class MonoInternVLConfig:
    """Shape of a monolithic model.

    Attributes:
        vision: Visual tokenizer.
        decoder: Language model with visual experts.
    """

    vision: PatchConfig
    decoder: DecoderConfig

    def __post_init__(self) -> None:
        """Checks the patches.

        Raises:
            ConfigError: patches without a bias.
        """
        self.vision.with_bias("Mono-InternVL")


class MonoInternVL(VisionLanguageModel):
    """Monolithic vision-language model.

    Args:
        config: Shape.
        backend: Attention backend.
    """

    def __init__(self, config: MonoInternVLConfig, backend: Backend = "auto") -> None:
        super().__init__(Decoder(config.decoder, backend), config.vision)
        self.config = config
        self.vision = PatchEmbedding(config.vision)
        if config.vision.stem:
            self.stem = Stem(config.vision.stem, len(config.vision.names))
        self.projector = Projector(config.vision.width * config.vision.downsample**2, config.decoder.hidden_size)

        self._transcriber: Transcriber | None = None

    def cut_with(self, cut: Cut) -> None:
        """Gives the tokenizer's `vedere.text.tokenizer.Tokenizer.pieces`, which a transcript or names are cut by."""
        if self.config.vision.transcript or self.config.vision.names:
            self._transcriber = Transcriber(cut, self.config.vision.grid // self.config.vision.downsample)

    def patch_states(self, pixels: Tensor, features: Tensor | None = None) -> Tensor:
        """Patches plus positions, before unshuffling: ``[N, h, w, C]``; ``features`` as the stem sees them."""
        h, w = pixels.shape[-2] // self.config.vision.patch, pixels.shape[-1] // self.config.vision.patch
        states: Tensor = self.vision(pixels, with_class=False, features=features).unflatten(1, (h, w))
        return states

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of normalised tiles ``[N, 3, S, S]``: ``[N, P, D]``.

        Raises:
            ConfigError: the model reads a transcript or tells names, and was given no tokenizer (`cut_with`).
        """
        vision = self.config.vision
        seen = self.stem(pixels) if vision.stem else None
        states = pixel_unshuffle(self.patch_states(pixels, seen), vision.downsample, vision.unshuffle)
        features: Tensor = self.projector(states)
        if seen is None or not (vision.transcript or vision.names):
            return features
        if self._transcriber is None:
            raise ConfigError(
                "this model puts pieces of the text that it reads into its visual tokens and has no tokenizer for it; load it "
                "with vedere.load, or call model.cut_with(tokenizer.pieces)"
            )
        read = list[Reading]()
        if vision.transcript:
            reader = self.stem.get_submodule("reader")
            assert isinstance(reader, Reader)
            read = read_tiles(reader, pixels, self.stem.part(seen, "reader"), vision.reading_scales)
        told = self.stem.namer.tell(self.stem.part(seen, "lite0"), vision.names) if vision.names else [""] * len(seen)
        rows, tokens = self._transcriber(read, told)
        return with_pieces(features, rows.to(features.device), self.decoder.embed(tokens.to(features.device)))

    def copy_experts(self) -> None:
        """Starts every visual expert as a copy of its text expert (sec. 3.2), which makes routing invisible."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.copy_text_to_visual()
