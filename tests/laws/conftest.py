"""Small random models for the laws; every norm, bias and expert is non-trivial."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig

LANGUAGE = DecoderConfig(
    hidden_size=32, ffn_size=48, layers=2, heads=4, kv_heads=2, head_dim=8, vocab_size=97, max_positions=512
)
VISION = PatchConfig(width=12, patch=4, tile=16)


def _randomise(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = torch.randn(parameter.shape, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * spread)
            else:
                parameter.copy_(spread * (0.2 if parameter.dim() > 1 else 0.05))


@pytest.fixture(scope="session")
def make_decoder() -> Callable[..., Decoder]:
    """`make_decoder(backend="explicit", seed=0, **changes)`: a random decoder."""

    def make(backend: str = "explicit", seed: int = 0, **changes: object) -> Decoder:
        decoder = Decoder(replace(LANGUAGE, **changes), backend)
        _randomise(decoder, seed)
        return decoder

    return make


@pytest.fixture(scope="session")
def make_mono() -> Callable[..., MonoInternVL]:
    """`make_mono(backend="explicit", seed=0, **changes)`: a random Mono-InternVL; changes are of its decoder."""

    def make(backend: str = "explicit", seed: int = 0, **changes: object) -> MonoInternVL:
        config = MonoInternVLConfig(vision=VISION, decoder=replace(LANGUAGE, **{"visual_ffn": True, **changes}))
        model = MonoInternVL(config, backend)
        _randomise(model, seed)
        return model

    return make


@pytest.fixture(scope="session")
def pack_documents() -> Callable[..., tuple[Tensor, Tensor, list[int]]]:
    """`pack_documents([ids, ...])`: ids, positions from 0 in each document, borders."""

    def pack(documents: list[Tensor]) -> tuple[Tensor, Tensor, list[int]]:
        borders = [0]
        for ids in documents:
            borders.append(borders[-1] + len(ids))
        return torch.cat(documents), torch.cat([torch.arange(len(ids)) for ids in documents]), borders

    return pack
