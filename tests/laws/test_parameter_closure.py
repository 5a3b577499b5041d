"""Mono-InternVL-2B on the meta device: every parameter and every key of the release, without a byte of weights."""

from dataclasses import replace

import pytest
import torch

from vedere.models import keymaps
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig

LAYERS, WIDTH, FFN, VOCABULARY, PATCH_WIDTH = 24, 2048, 8192, 92553, 1024
CONFIG = MonoInternVLConfig(
    vision=PatchConfig(width=PATCH_WIDTH),
    decoder=DecoderConfig(
        hidden_size=WIDTH,
        ffn_size=FFN,
        layers=LAYERS,
        heads=16,
        kv_heads=8,
        head_dim=128,
        vocab_size=VOCABULARY,
        rope_scaling="dynamic",
        visual_ffn=True,
    ),
)


@pytest.fixture(scope="module")
def model() -> MonoInternVL:
    with torch.device("meta"):
        return MonoInternVL(CONFIG)


def counted(model: MonoInternVL, *parts: str) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if all(part in name for part in parts))


def test_parts_close(model) -> None:
    assert counted(model, "decoder.embed") + counted(model, "decoder.head") == 2 * VOCABULARY * WIDTH  # 379.10 M
    attention = (16 + 2 * 8) * 128 * WIDTH + WIDTH * WIDTH  # wqkv 8.389 M, wo 4.194 M
    assert counted(model, "attention.text") == LAYERS * attention
    assert counted(model, "ffn.text") == counted(model, "ffn.visual") == LAYERS * 3 * WIDTH * FFN  # 1,207.96 M
    norms = counted(model, "decoder.layers", "_norm.weight")
    assert norms == LAYERS * 2 * WIDTH
    assert counted(model, "decoder.norm") == WIDTH
    assert counted(model, "projector") == 2 * 4096 + (4096 * WIDTH + WIDTH) + (WIDTH * WIDTH + WIDTH)  # 12.60 M
    assert counted(model, "vision") == PATCH_WIDTH * 3 * 14 * 14 + PATCH_WIDTH + PATCH_WIDTH + 1025 * PATCH_WIDTH
    assert counted(model, "attention.visual") == 0


def test_the_total_is_that_of_the_release(model) -> None:
    total = sum(p.numel() for p in model.parameters())
    assert round(total / 1e6, 1) == 3111.4
    assert abs(2 * total / 1e9 - 6.22) < 0.005  # gigabytes of the two bfloat16 shards


def test_visual_attention_experts_add_302_million() -> None:
    with torch.device("meta"):
        model = MonoInternVL(replace(CONFIG, decoder=replace(CONFIG.decoder, visual_attention=True)))
    assert counted(model, "attention.visual") == LAYERS * 12_582_912
    assert counted(model, "attention.visual") == counted(model, "attention.text")


def released_shapes() -> dict[str, tuple[int, ...]]:
    """The released key list, written out."""
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (1, 1, 1024),
        "vision_model.embeddings.position_embedding": (1, 1025, 1024),
        "vision_model.embeddings.patch_embedding.weight": (1024, 3, 14, 14),
        "vision_model.embeddings.patch_embedding.bias": (1024,),
        "mlp1.0.weight": (4096,),
        "mlp1.0.bias": (4096,),
        "mlp1.1.weight": (2048, 4096),
        "mlp1.1.bias": (2048,),
        "mlp1.3.weight": (2048, 2048),
        "mlp1.3.bias": (2048,),
        "language_model.model.tok_embeddings.weight": (92553, 2048),
        "language_model.model.norm.weight": (2048,),
        "language_model.output.weight": (92553, 2048),
    }
    for layer in range(24):
        prefix = f"language_model.model.layers.{layer}"
        shapes[f"{prefix}.attention.wqkv.weight"] = (4096, 2048)
        shapes[f"{prefix}.attention.wo.weight"] = (2048, 2048)
        for ffn in ("feed_forward", "feed_forward_ve"):
            shapes[f"{prefix}.{ffn}.w1.weight"] = (8192, 2048)
            shapes[f"{prefix}.{ffn}.w3.weight"] = (8192, 2048)
            shapes[f"{prefix}.{ffn}.w2.weight"] = (2048, 8192)
        shapes[f"{prefix}.attention_norm.weight"] = (2048,)
        shapes[f"{prefix}.ffn_norm.weight"] = (2048,)
    return shapes


def test_the_key_set_is_that_of_the_release(model) -> None:
    names = keymaps.mono_internvl(CONFIG)
    assert names.foreign_shapes == released_shapes()
    assert len(names.foreign_shapes) == 13 + 24 * 10
    assert names.own_shapes == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_a_tile_is_256_tokens() -> None:
    assert CONFIG.vision.tokens_per_tile == 256
