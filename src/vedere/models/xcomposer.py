"""InternLM-XComposer: EVA tower, perceive sampler, InternLM with LoRA on all tokens (arXiv 2309.15112, sec. 3.1).

A picture is squashed to 224 x 224 px and becomes 66 positions: a flag, 64 sampled tokens, a flag. The flags are learned
vectors that the released code keeps frozen, not rows of the vocabulary, so here all 66 positions are visual ones and the
prompt is rendered without image markers. Fewer features than 66 a picture is an error of `place`, as in every assembly.

Axes: N pictures, D decoder width.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from vedere.errors import ConfigError
from vedere.models.attention import Backend
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.eva import Eva, EvaConfig
from vedere.models.perceive_sampler import PerceiveSampler, SamplerConfig
from vedere.models.stored_lora import LowRankConfig, add_low_rank, fold_low_rank
from vedere.models.vision_language import VisionLanguageModel

FLAGS = 2  # positions of a picture beside the sampled ones


@dataclass(frozen=True, kw_only=True)
class XComposerConfig:
    """Shape of a model of the first XComposer.

    Attributes:
        decoder: Language model.
        vision: Vision tower.
        sampler: What reduces its tokens.
        lora: Un-merged adapters of the language model; None where config.json has no such block.
    """

    decoder: DecoderConfig
    vision: EvaConfig = field(default_factory=EvaConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    lora: LowRankConfig | None = field(default_factory=LowRankConfig)

    def __post_init__(self) -> None:
        """Checks that the sampler reads what the tower writes.

        Raises:
            ConfigError: two widths.
        """
        if self.sampler.picture_width != self.vision.patches.width:
            raise ConfigError(
                f"the sampler reads tokens of width {self.sampler.picture_width}, the tower writes "
                f"{self.vision.patches.width}; expected one width"
            )

    @property
    def tokens_per_picture(self) -> int:
        """Positions that a picture takes, flags included."""
        return self.sampler.queries + FLAGS


class XComposer(VisionLanguageModel):
    """The first XComposer.

    Args:
        config: Shape.
        backend: Attention backend.
    """

    def __init__(self, config: XComposerConfig, backend: Backend = "auto") -> None:
        super().__init__(Decoder(config.decoder, backend), config.vision.patches)
        self.config = config
        if config.lora is not None:
            add_low_rank(self.decoder, config.lora)
        self.vision = Eva(config.vision)
        self.sampler = PerceiveSampler(config.sampler)
        self.projector = nn.Linear(config.sampler.width, config.decoder.hidden_size)
        self.image_start = nn.Parameter(torch.zeros(config.decoder.hidden_size), requires_grad=False)
        self.image_end = nn.Parameter(torch.zeros(config.decoder.hidden_size), requires_grad=False)

    @property
    def tokens_per_tile(self) -> int:
        """Positions that a picture takes, flags included."""
        return self.config.tokens_per_picture

    def encode(self, pixels: Tensor) -> Tensor:
        """Features of normalised pictures ``[N, 3, S, S]``: ``[N, Q + 2, D]``, between their flags."""
        sampled = self.projector(self.sampler(self.vision.norm(self.vision.encode(pixels))))
        start, end = (flag.to(sampled.dtype).expand(len(sampled), 1, -1) for flag in (self.image_start, self.image_end))
        return torch.cat([start, sampled, end], dim=1)

    def fold_adapters(self) -> None:
        """Puts the adapters into the base weights, for faster answers; the model then is one without ``lora``."""
        fold_low_rank(self.decoder)
        self.config = dataclasses.replace(self.config, lora=None)
