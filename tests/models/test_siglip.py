"""SigLIP: vectors of both sides, texts as it was trained on them, the live peer, and folders that are something else."""

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
from vedere.models.siglip import Siglip

WORDS = ["a", "lake", "bridge", "in", "snow", "tea", "</s>", "<unk>", "-"]
TEXT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "vocab_size": 9,
    "max_position_embeddings": 12,
    "model_type": "siglip_text_model",
}
VISION = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "patch_size": 8,
    "image_size": 32,
    "model_type": "siglip_vision_model",
}
BOTH = {"text_config": TEXT | {"projection_size": 12}, "vision_config": VISION}


def tower(front: str, shape: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    width, wide = shape["hidden_size"], shape["intermediate_size"]
    matrices = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
    matrices |= {"mlp.fc1": (wide, width), "mlp.fc2": (width, wide)}
    found: dict[str, tuple[int, ...]] = {}
    for number in range(shape["num_hidden_layers"]):
        for name, (rows, columns) in matrices.items():
            at = f"{front}.encoder.layers.{number}.{name}"
            found |= {f"{at}.weight": (rows, columns), f"{at}.bias": (rows,)}
        for name in ("layer_norm1", "layer_norm2"):
            at = f"{front}.encoder.layers.{number}.{name}"
            found |= {f"{at}.weight": (width,), f"{at}.bias": (width,)}
    return found


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Names and shapes as the releases have them."""
    text, sight, wide = 16, 12, 20
    shapes: dict[str, tuple[int, ...]] = {
        "text_model.embeddings.token_embedding.weight": (9, text),
        "text_model.embeddings.position_embedding.weight": (12, text),
        "text_model.head.weight": (12, text),
        "text_model.head.bias": (12,),
        "vision_model.embeddings.patch_embedding.weight": (sight, 3, 8, 8),
        "vision_model.embeddings.patch_embedding.bias": (sight,),
        "vision_model.embeddings.position_embedding.weight": (16, sight),
        "vision_model.head.probe": (1, 1, sight),
        "vision_model.head.attention.in_proj_weight": (3 * sight, sight),
        "vision_model.head.attention.in_proj_bias": (3 * sight,),
        "vision_model.head.attention.out_proj.weight": (sight, sight),
        "vision_model.head.attention.out_proj.bias": (sight,),
        "vision_model.head.mlp.fc1.weight": (wide, sight),
        "vision_model.head.mlp.fc1.bias": (wide,),
        "vision_model.head.mlp.fc2.weight": (sight, wide),
        "vision_model.head.mlp.fc2.bias": (sight,),
    }
    for name, width in (
        ("text_model.final_layer_norm", text),
        ("vision_model.post_layernorm", sight),
        ("vision_model.head.layernorm", sight),
    ):
        shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    shapes |= tower("text_model", TEXT) | tower("vision_model", VISION)
    draw = torch.Generator().manual_seed(seed)
    found = {name: torch.randn(shape, generator=draw) * 0.5 for name, shape in shapes.items()}
    return found | {"logit_scale": torch.tensor([4.7]), "logit_bias": torch.tensor([-12.9])}


def folder(path: Path, tokenizer_class: str = "SiglipTokenizer", pad: Any = "</s>", **changes: Any) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "siglip"} | BOTH | changes))
    (path / "preprocessor_config.json").write_text(json.dumps({"size": {"height": 32, "width": 32}, "resample": 3}))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": tokenizer_class, "pad_token": pad}))
    save_file(tensors(), path / "model.safetensors")
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 6)])
    made.save(str(path / "tokenizer.json"))
    return path


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def ids_of(model: Siglip, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    seen: list[list[int]] = []
    with monkeypatch.context() as patch:
        words = model._words

        def watched(ids: torch.Tensor, places: torch.Tensor) -> Any:
            seen.extend(ids.tolist())
            return words(ids, places)

        patch.setattr(model, "_words", watched)
        model.texts(texts)
    return seen


def test_both_sides_give_unit_vectors_of_one_space(tmp_path: Path) -> None:
    model = Siglip(folder(tmp_path / "m"))
    texts, pictures = model.texts(["a lake", "", "snow " * 90]), model.pictures([photo(40, 32), photo(1, 9000)])
    assert (texts.shape, pictures.shape) == ((3, 12), (2, 12))
    for vectors in (texts, pictures):
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert model.pictures([]).shape == (0, 12)
    for place, text in enumerate(["a lake", "", "snow " * 90]):
        assert np.abs(model.texts([text])[0] - texts[place]).max() < 1e-6


def test_texts_are_written_as_they_were_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Siglip(folder(tmp_path / "first"))
    assert ids_of(first, ["A  lake-bridge!"], monkeypatch) == [[0, 7] + [6] * 10]  # "lakebridge" is one unknown word
    assert ids_of(first, ["a lake " * 9], monkeypatch) == [[0, 1] * 5 + [0, 6]]  # cut, the end token stays
    second = Siglip(folder(tmp_path / "second", "GemmaTokenizer", {"content": "tea"}))
    assert ids_of(second, ["A LAKE - Snow"], monkeypatch) == [[0, 1, 8, 4, 6] + [5] * 7]
    unnamed = Siglip(folder(tmp_path / "third", "GemmaTokenizer", None))
    assert ids_of(unnamed, ["lake"], monkeypatch) == [[1, 6] + [1] * 10]  # the filler of the published defaults


def test_the_bar_is_where_the_model_gives_one_percent(tmp_path: Path) -> None:
    path = folder(tmp_path / "m")
    encoder = open_encoder(path)
    assert encoder.sees
    assert encoder.dimension == 12
    logit = np.exp(4.7) * encoder.similarity - 12.9
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(0.01, rel=1e-5)
    save_file(tensors() | {"logit_bias": torch.tensor([-900.0])}, path / "model.safetensors")
    assert open_encoder(path).similarity == 1.0


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"pictures of any shape \(NaFlex\); take a release of one resolution, such as"
    ):
        open_encoder(folder(tmp_path / "a", model_type="siglip2"))
    with pytest.raises(ConfigError, match="holds a 'clip'; expected a siglip"):
        Siglip(folder(tmp_path / "b", model_type="clip"))
    with pytest.raises(ConfigError, match="the text side has activation 'relu'; supported: quick_gelu, gelu, gelu_pyt"):
        Siglip(folder(tmp_path / "c", text_config=TEXT | {"hidden_act": "relu"}))
    with pytest.raises(ConfigError, match="without its pooling head gives no vector of a picture"):
        Siglip(folder(tmp_path / "d", vision_config=VISION | {"vision_use_head": False}))
    with pytest.raises(CheckpointError, match=r"do not fit its config\.json: texts have 12 numbers, pictures 768"):
        Siglip(folder(tmp_path / "e", vision_config={}))
    with pytest.raises(CheckpointError, match=r"the tensors of .* do not fit its config\.json"):
        Siglip(folder(tmp_path / "f", text_config={}))  # the published defaults, whose shapes are others
    for name in ("logit_bias", "text_model.head.weight"):
        path = folder(tmp_path / name)
        save_file({key: value for key, value in tensors().items() if key != name}, path / "model.safetensors")
        with pytest.raises(CheckpointError, match=rf"do not fit its config\.json: '{name}'"):
            Siglip(path)


@pytest.mark.peer
def test_vectors_are_those_of_the_live_peer(tmp_path: Path) -> None:
    import transformers

    path = folder(tmp_path / "m")
    peer = transformers.SiglipModel(
        transformers.SiglipConfig(text_config=BOTH["text_config"], vision_config=VISION)
    ).eval()
    loaded = peer.load_state_dict(load_file(path / "model.safetensors"), strict=False)
    assert not loaded.unexpected_keys
    assert not loaded.missing_keys
    processor = transformers.SiglipImageProcessorPil.from_pretrained(path)
    model, images = Siglip(path), [photo(48, 32, 2), photo(32, 70, 3)]
    pixels = processor(images, return_tensors="pt")["pixel_values"]
    ids = torch.tensor([[0, 1] + [6] * 10, [2, 3, 4, 5] + [6] * 8])
    with torch.inference_mode():
        found = peer(input_ids=ids, pixel_values=pixels)
    assert np.abs(model.texts(["A lake!", "bridge in snow, tea"]) - found.text_embeds.numpy()).max() < 1e-5
    assert np.abs(model.pictures(images) - found.image_embeds.numpy()).max() < 1e-5
    cosines = model.texts(["A lake!", "bridge in snow, tea"]) @ model.pictures(images).T
    expected = (found.logits_per_text.numpy() - (-12.9)) / np.exp(4.7)
    assert np.abs(cosines - expected).max() < 1e-5


@pytest.mark.peer
def test_punctuation_is_dropped_as_the_peer_drops_it() -> None:
    from transformers.models.siglip.tokenization_siglip import SiglipTokenizer

    from vedere.models.siglip import written

    canonical: Any = SiglipTokenizer.canonicalize_text

    for text in ["A Lake, in snow!", "  x.y -- Z_1  ", "断桥，雪。", "don't", "", "...", "ÀÉ\tß\n1"]:
        peer = SiglipTokenizer.__new__(SiglipTokenizer)
        peer.__dict__["do_lower_case"] = True
        assert written(text, bare=True) == canonical(peer, text)
