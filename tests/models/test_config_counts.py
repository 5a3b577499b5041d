"""A config that names more layers than anybody builds is refused before its tensors are counted one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from vedere.errors import ConfigError
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.config_fields import MOST_LAYERS
from vedere.models.decoder import DecoderConfig
from vedere.models.eva import EvaConfig
from vedere.models.intern_vit import InternViTConfig
from vedere.models.patches import PatchConfig
from vedere.models.perceive_sampler import SamplerConfig


def decoder(**fields: Any) -> DecoderConfig:
    shape: dict[str, Any] = {"hidden_size": 8, "ffn_size": 8, "layers": 1, "heads": 2, "kv_heads": 1, "head_dim": 4}
    return DecoderConfig(**{**shape, "vocab_size": 9, **fields})


@pytest.mark.parametrize(
    "build",
    [
        decoder,
        lambda layers: ClipViTConfig(patches=PatchConfig(width=8, bias=False), heads=2, ffn_size=8, layers=layers),
        lambda layers: EvaConfig(patches=PatchConfig(width=8), heads=2, ffn_size=8, layers=layers),
        lambda layers: InternViTConfig(patches=PatchConfig(width=8), heads=2, ffn_size=8, layers=layers),
        lambda layers: SamplerConfig(layers=layers),
    ],
)
@pytest.mark.parametrize("layers", [MOST_LAYERS + 1, 2**63])
def test_too_many_layers(build: Callable[..., Any], layers: int) -> None:
    with pytest.raises(ConfigError, match=rf"layers is {layers}; expected 1 to {MOST_LAYERS}; correct the config"):
        build(layers=layers)


def test_bounds_are_allowed_and_members_are_counted_too() -> None:
    assert decoder(layers=MOST_LAYERS).layers == MOST_LAYERS
    with pytest.raises(ConfigError, match=rf"layers is 0; expected 1 to {MOST_LAYERS}"):
        decoder(layers=0)
    with pytest.raises(ConfigError, match=rf"moe_size is {2**62}; expected 1 to {MOST_LAYERS}"):
        decoder(moe_size=2**62, moe_active=1)
