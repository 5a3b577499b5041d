"""Folders of sentence-transformers: against a live peer, every pooling, and folders that are something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vedere.errors import CheckpointError, ConfigError
from vedere.models.bert_encoder import SentenceEncoder

TEXTS = ["a lake", "a bridge in the snow, and a lake", "", "snow"]
SHAPE = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 32,
    "pad_token_id": 1,
}


def tokenizer(path: Path) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[CLS]", "[PAD]", "[SEP]", "[UNK]"]
    made.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=60, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 0))
    made.save(str(path / "tokenizer.json"))


def tensors(prefix: str = "", seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights under the published names."""
    draw = torch.Generator().manual_seed(seed)
    width, wide = SHAPE["hidden_size"], SHAPE["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (SHAPE["vocab_size"], width),
        "embeddings.position_embeddings.weight": (SHAPE["max_position_embeddings"], width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for layer in range(SHAPE["num_hidden_layers"]):
        front = f"encoder.layer.{layer}."
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{front}{name}.weight": (width, width), f"{front}{name}.bias": (width,)}
        shapes |= {f"{front}intermediate.dense.weight": (wide, width), f"{front}intermediate.dense.bias": (wide,)}
        shapes |= {f"{front}output.dense.weight": (width, wide), f"{front}output.dense.bias": (width,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{front}{name}.weight": (width,), f"{front}{name}.bias": (width,)}
    return {prefix + name: torch.randn(shape, generator=draw) * 0.5 for name, shape in shapes.items()}


def folder(path: Path, kind: str = "bert", pooling: str = "mean", more: tuple[Any, ...] = (), **changes: Any) -> Path:
    (path / "1_Pooling").mkdir(parents=True)
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    (path / "modules.json").write_text(json.dumps([{"path": p, "type": t} for p, t in (*modules, *more)]))
    keys = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "lasttoken": "lasttoken"}
    (path / "1_Pooling" / "config.json").write_text(
        json.dumps({f"pooling_mode_{key}": name == pooling for name, key in keys.items()})
    )
    (path / "config.json").write_text(json.dumps(SHAPE | {"model_type": kind, "hidden_act": "gelu"} | changes))
    prefix = "roberta." if kind != "bert" else ""
    save_file(tensors(prefix) | {prefix + "pooler.dense.weight": torch.zeros(2)}, path / "model.safetensors")
    tokenizer(path)
    return path


def test_vectors_have_length_one_and_depend_on_their_own_text_only(tmp_path: Path) -> None:
    encoder = SentenceEncoder(folder(tmp_path / "m"))
    found = encoder.texts(TEXTS)
    assert found.shape == (4, 24)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    for place, text in enumerate(TEXTS):
        assert np.abs(encoder.texts([text])[0] - found[place]).max() < 1e-6
    assert encoder.longest == 32


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_poolings(tmp_path: Path, pooling: str) -> None:
    encoder = SentenceEncoder(folder(tmp_path / "m", pooling=pooling))
    ids = torch.tensor([encoder.tokenizer.encode(TEXTS[1]).ids])
    with torch.inference_mode():
        hidden = encoder.model(ids, torch.ones_like(ids, dtype=torch.bool))[0]
    expected = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.amax(0)}[pooling]
    assert np.abs(encoder.texts([TEXTS[1]])[0] - (expected / expected.norm()).numpy()).max() < 1e-6


def test_a_dense_layer_and_a_prompt(tmp_path: Path) -> None:
    path = folder(tmp_path / "m", more=(("2_Dense", "sentence_transformers.models.Dense"),))
    (path / "2_Dense").mkdir()
    weight = torch.randn(5, 24)
    save_file({"linear.weight": weight, "linear.bias": torch.ones(5)}, path / "2_Dense" / "model.safetensors")
    config = {"activation_function": "torch.nn.modules.activation.Tanh"}
    (path / "2_Dense" / "config.json").write_text(json.dumps(config))
    plain = SentenceEncoder(folder(tmp_path / "plain"))
    (path / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "a bridge "}}))
    prompted = SentenceEncoder(path)
    ids = torch.tensor([plain.tokenizer.encode("a bridge snow").ids])
    with torch.inference_mode():
        pooled = plain.model(ids, torch.ones_like(ids, dtype=torch.bool))[0].mean(0)
    expected = torch.tanh(weight @ pooled + 1)
    assert np.abs(prompted.texts(["snow"])[0] - (expected / expected.norm()).numpy()).max() < 1e-5
    assert prompted.dimension == 5


def test_long_texts_are_cut(tmp_path: Path) -> None:
    encoder = SentenceEncoder(folder(tmp_path / "m"))
    assert np.array_equal(encoder.texts(["snow " * 200]), encoder.texts(["snow " * 300]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "t5"}, r"holds a 't5' with activation 'gelu'; supported are bert, roberta"),
        ({"hidden_act": "relu"}, r"holds a 'bert' with activation 'relu'"),
        ({"pooling": "lasttoken"}, r"pools by \['pooling_mode_lasttoken'\]; supported is one of mean, cls, max"),
        ({"more": (("2_X", "x.LSTM"),)}, r"has a module 'LSTM'; supported are Transformer, Pooling, Dense"),
        ({"position_embedding_type": "relative_key"}, "has relative positions; supported are absolute ones"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SentenceEncoder(folder(tmp_path / "m", **changes))


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"modules\.json cannot be read .*; the folder is incomplete"):
        SentenceEncoder(tmp_path)
    path = folder(tmp_path / "a")
    (path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors; save the model in that form"):
        SentenceEncoder(path)
    path = folder(tmp_path / "b", num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"tensors of .* do not fit its config\.json"):
        SentenceEncoder(path)
    path = folder(tmp_path / "c")
    (path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json cannot be read"):
        SentenceEncoder(path)


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_hidden_states_are_those_of_the_live_peer(tmp_path: Path, kind: str) -> None:
    import transformers

    path = folder(tmp_path / "m", kind)
    encoder = SentenceEncoder(path)
    peers: dict[str, Any] = {"bert": transformers.BertModel, "xlm-roberta": transformers.XLMRobertaModel}
    configs: dict[str, Any] = {"bert": transformers.BertConfig, "xlm-roberta": transformers.XLMRobertaConfig}
    peer = peers[kind](configs[kind](**SHAPE, layer_norm_eps=1e-12), add_pooling_layer=False).eval()
    peer.load_state_dict(tensors(), strict=False)
    ids = torch.tensor([[0, 5, 6, 7, 2], [0, 8, 2, 1, 1]])
    inside = ids != 1
    with torch.inference_mode():
        expected = peer(input_ids=ids, attention_mask=inside.long()).last_hidden_state
        found = encoder.model(ids, inside)
    assert (found - expected)[inside].abs().max() < 1e-5
