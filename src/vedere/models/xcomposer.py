"""InternLM-XComposer: EVA tower, perceive sampler, InternLM with LoRA on all tokens (arXiv 2309.15112, sec. 3.1).

A picture is squashed to 224 x 224 px and becomes 66 positions: a flag, 64 sampled tokens, a flag. The flags are learned
vectors that the released code keeps frozen, not rows of the vocabulary, so here all 66 positions are visual ones and the
prompt is rendered without image markers. Fewer features than 66 a picture is an error of `place`, as in every assembly.

The LoRA of query, value, up and down is a part of the release (sec. 3.2): its files hold the factors beside the base weights,
and a model without them is ruined. Its code can adapt key and output as well, or fewer maps (`LowRankConfig`). Cost of the
released rank 256: 0.38 B parameters, 6 % more work a layer; `vedere.models.adapters.merge_lora` puts them into the base once
where nothing is to be trained.

Axes: N pictures, D decoder width.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from vedere.errors import ConfigError
from vedere.models.attention import Backend
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.eva import Eva, EvaConfig
from vedere.models.low_rank import LoRALinear, LowRank, Part
from vedere.models.perceive_sampler import PerceiveSampler, SamplerConfig
from vedere.models.vision_language import VisionLanguageModel
from vedere.vision.pixels import Statistics

FLAGS = 2  # positions of a picture beside the sampled ones

Adapted = Literal["q", "k", "v", "o", "ffn"]
"""What the released code can adapt; ``ffn`` stands for up and down, never for gate."""


@dataclass(frozen=True, kw_only=True)
class LowRankConfig:
    """The adapters of one release.

    Attributes:
        rank: Inner width r.
        alpha: Scale; the product counts ``alpha / rank``.
        dropout: Of the adapters' input, while training.
        maps: Which maps have them, in the order of config.json.
    """

    rank: int = 256
    alpha: float = 256.0
    dropout: float = 0.05
    maps: tuple[Adapted, ...] = ("q", "v", "ffn")

    def __post_init__(self) -> None:
        """Checks rank and maps.

        Raises:
            ConfigError: a rank below 1, no map, a map twice, or one that the released code cannot adapt.
        """
        if self.rank < 1:
            raise ConfigError(f"adapters of rank {self.rank}; expected at least 1, or none at all")
        if not self.maps or len(set(self.maps)) < len(self.maps) or set(self.maps) - set(get_args(Adapted)):
            raise ConfigError(
                f"adapters on {list(self.maps)}; expected some of {', '.join(get_args(Adapted))}, each once, or no adapters"
            )


def adapted_rows(config: DecoderConfig, maps: Collection[Adapted]) -> dict[str, dict[str, Part]]:
    """Which rows of a layer's maps have adapters: map -> part -> (first row, number of rows)."""
    query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
    every: dict[str, dict[str, tuple[Adapted, Part]]] = {
        "attention.text.qkv": {
            "q": ("q", (0, query)),
            "k": ("k", (query, key)),
            "v": ("v", (query + key, key)),
        },
        "attention.text.out": {"o": ("o", (0, config.hidden_size))},
        "ffn.text.gate_up": {"up": ("ffn", (config.ffn_size, config.ffn_size))},
        "ffn.text.down": {"down": ("ffn", (0, config.hidden_size))},
    }
    chosen = {
        name: {part: rows for part, (kind, rows) in parts.items() if kind in maps} for name, parts in every.items()
    }
    return {name: parts for name, parts in chosen.items() if parts}


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

    statistics: ClassVar[Statistics] = "clip"

    def __init__(self, config: XComposerConfig, backend: Backend = "auto") -> None:
        super().__init__(Decoder(config.decoder, backend), config.vision.patches)
        self.config = config
        if config.lora is not None:
            self._adapt(config.lora)
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

    def _adapt(self, lora: LowRankConfig) -> None:
        """Gives every layer its adapters."""
        maps = adapted_rows(self.decoder.config, lora.maps)
        for layer in self.decoder.layers:
            for name, parts in maps.items():
                base = layer.get_submodule(name)
                assert isinstance(base, nn.Linear)
                low = LowRank(base.in_features, list(parts.values()), lora.rank, lora.alpha, lora.dropout)
                layer.set_submodule(name, LoRALinear(base, low))
