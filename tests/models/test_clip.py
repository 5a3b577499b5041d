"""CLIP and Chinese-CLIP: vectors of both sides, pictures of any shape, live peers, and folders that are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from vedere.compose.encoders import open_encoder
from vedere.errors import CheckpointError, ConfigError
from vedere.models.clip import Clip

WORDS = ["a", "lake", "bridge", "in", "snow", "tea"]
TEXT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 9}
VISION = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "patch_size": 8,
    "image_size": 32,
}


def layers(front: str, shape: dict[str, int], kind: str = "clip") -> dict[str, tuple[int, ...]]:
    width, wide = shape["hidden_size"], shape["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {}
    for number in range(shape["num_hidden_layers"]):
        at = f"{front}encoder.layers.{number}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            found |= {f"{at}self_attn.{name}.weight": (width, width), f"{at}self_attn.{name}.bias": (width,)}
        found |= {f"{at}mlp.fc1.weight": (wide, width), f"{at}mlp.fc1.bias": (wide,)}
        found |= {f"{at}mlp.fc2.weight": (width, wide), f"{at}mlp.fc2.bias": (width,)}
        for name in ("layer_norm1", "layer_norm2"):
            found |= {f"{at}{name}.weight": (width,), f"{at}{name}.bias": (width,)}
    return found


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    text, sight = TEXT["hidden_size"], VISION["hidden_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": (TEXT["vocab_size"], text),
        "text_model.embeddings.position_embedding.weight": (10, text),
        "text_model.final_layer_norm.weight": (text,),
        "text_model.final_layer_norm.bias": (text,),
        "vision_model.embeddings.class_embedding": (sight,),
        "vision_model.embeddings.patch_embedding.weight": (sight, 3, 8, 8),
        "vision_model.embeddings.position_embedding.weight": (17, sight),
        "text_projection.weight": (6, text),
        "visual_projection.weight": (6, sight),
        "logit_scale": (),
    }
    for name in ("pre_layrnorm", "post_layernorm"):
        shapes |= {f"vision_model.{name}.weight": (sight,), f"vision_model.{name}.bias": (sight,)}
    shapes |= layers("text_model.", TEXT) | layers("vision_model.", VISION)
    return {name: torch.randn(shape, generator=draw) * 0.5 for name, shape in shapes.items()}


def tokenizer(path: Path, first: int, last: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate(WORDS)} | {"<s>": 6, "<e>": 7, "<unk>": 8}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {number: word for word, number in vocabulary.items()}
    made.post_processor = processors.TemplateProcessing(
        single=f"{names[first]} $A {names[last]}", special_tokens=[(names[first], first), (names[last], last)]
    )
    made.save(str(path / "tokenizer.json"))


def folder(path: Path, kind: str = "clip", **changes: Any) -> Path:
    path.mkdir(parents=True)
    text = TEXT | {"max_position_embeddings": 10, "hidden_act": "quick_gelu", "eos_token_id": 7}
    config = {"model_type": kind, "text_config": text, "vision_config": VISION} | changes
    (path / "config.json").write_text(json.dumps(config))
    (path / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": 32}}))
    save_file(tensors(), path / "model.safetensors")
    tokenizer(path, 6, 7)
    return path


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_both_sides_give_unit_vectors_of_one_space(tmp_path: Path) -> None:
    model = Clip(folder(tmp_path / "m"))
    texts, pictures = model.texts(["a lake", "", "snow " * 90]), model.pictures([photo(40, 32), photo(33, 90)])
    assert texts.shape == (3, 6)
    assert pictures.shape == (2, 6)
    for vectors in (texts, pictures):
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert model.pictures([]).shape == (0, 6)
    for place, text in enumerate(["a lake", "", "snow " * 90]):
        assert np.abs(model.texts([text])[0] - texts[place]).max() < 1e-6


def test_pictures_of_any_shape_are_cropped_to_their_middle(tmp_path: Path) -> None:
    model = Clip(folder(tmp_path / "m"))
    square = photo(32, 32, 1)
    wide = Image.new("RGB", (64, 32))
    wide.paste(square, (16, 0))
    found = model.pictures([square, wide, photo(1, 20_000), photo(20_000, 1)])
    assert np.abs(found[0] - found[1]).max() < 1e-6
    assert np.isfinite(found).all()


def test_a_gallery_encoder_that_sees(tmp_path: Path) -> None:
    encoder = open_encoder(folder(tmp_path / "m"))
    assert encoder.sees
    assert encoder.dimension == 6
    other = folder(tmp_path / "deep" / "m")
    changed = {name: tensor + 1 for name, tensor in tensors().items()}
    save_file(changed, other / "model.safetensors")
    assert open_encoder(other).name != encoder.name  # other weights, another index
    with pytest.raises(
        ConfigError, match=r"holds neither modules\.json nor a CLIP or SigLIP model; give multilingual or minilm, or"
    ):
        open_encoder(tmp_path)
    with pytest.raises(ConfigError, match="'minlm' is neither a known name nor a folder; did you mean 'minilm'"):
        open_encoder("minlm")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds a 'siglip'; a CLIP model is one of clip, chinese_clip"):
        Clip(folder(tmp_path / "a", "siglip"))
    with pytest.raises(
        ConfigError, match="the vision side has activation 'relu'; supported: quick_gelu, gelu, gelu_pytorch_tanh"
    ):
        Clip(folder(tmp_path / "b", vision_config=VISION | {"hidden_act": "relu"}))
    with pytest.raises(CheckpointError, match=r"the tensors of .* do not fit its config\.json"):
        Clip(folder(tmp_path / "c", vision_config=VISION | {"num_hidden_layers": 3}))
    path = folder(tmp_path / "d")
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        Clip(path)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read .*; the folder is incomplete"):
        Clip(tmp_path / "none")


@pytest.mark.peer
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_vectors_are_those_of_the_live_peer(tmp_path: Path, act: str) -> None:
    import transformers

    text = TEXT | {
        "max_position_embeddings": 10,
        "hidden_act": act,
        "eos_token_id": 7,
        "bos_token_id": 6,
        "pad_token_id": 7,
    }
    vision = VISION | {"hidden_act": act}
    peer = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    ).eval()
    path = folder(tmp_path / "m", text_config=text, vision_config=vision)
    loaded = peer.load_state_dict(load_file(path / "model.safetensors"), strict=False)
    assert not loaded.unexpected_keys
    model = Clip(path)
    ids = torch.tensor([[6, 0, 1, 7, 7, 7], [6, 2, 3, 4, 5, 7]])
    images = [photo(48, 32, 2), photo(32, 32, 3)]
    pixels = torch.stack([model._pixels(image) for image in images])
    with torch.inference_mode():
        words = peer.text_projection(peer.text_model(input_ids=ids, attention_mask=None).pooler_output)
        sight = peer.visual_projection(peer.vision_model(pixel_values=pixels).pooler_output)
    for found, expected in ((model.texts(["a lake", "bridge in snow tea"]), words), (model.pictures(images), sight)):
        assert np.abs(found - torch.nn.functional.normalize(expected, dim=-1).numpy()).max() < 1e-5


@pytest.mark.peer
def test_chinese_clip_is_that_of_the_live_peer(tmp_path: Path) -> None:
    import transformers

    text = TEXT | {"max_position_embeddings": 10, "hidden_act": "gelu", "pad_token_id": 8}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=VISION, projection_dim=6)
    torch.manual_seed(0)
    peer = transformers.ChineseCLIPModel(config).eval()
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
    path = folder(tmp_path / "m", "chinese_clip", text_config=text | {"layer_norm_eps": 1e-12})
    (path / "preprocessor_config.json").write_text(
        json.dumps({"size": {"height": 32, "width": 32}, "do_center_crop": False})
    )
    save_file({k: v.contiguous() for k, v in peer.state_dict().items()}, path / "model.safetensors")
    model = Clip(path)
    images = [photo(48, 32, 2), photo(32, 32, 3)]
    pixels = torch.stack([model._pixels(image) for image in images])
    ids = torch.tensor([[6, 0, 1, 7, 8, 8], [6, 2, 3, 4, 5, 7]])
    with torch.inference_mode():
        hidden = peer.text_model(input_ids=ids, attention_mask=(ids != 8).long()).last_hidden_state[:, 0]
        words = peer.text_projection(hidden)
        sight = peer.visual_projection(peer.vision_model(pixel_values=pixels).pooler_output)
    for found, expected in ((model.texts(["a lake", "bridge in snow tea"]), words), (model.pictures(images), sight)):
        assert np.abs(found - torch.nn.functional.normalize(expected, dim=-1).numpy()).max() < 1e-5
