"""Checkpoint folders, damaged: config.json, safetensors, indices, deltas, GGUF, tokenizers, training states."""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from cases import Case, law
from mutations import damage, damage_json, dump_json
from torch import nn

from vedere.infer.hf_processor import hf_files
from vedere.infer.loading import open_model
from vedere.infer.prompts import Question
from vedere.models import keymaps
from vedere.models.checkpoints import key_map, load_model, save_delta_of, save_model, write_tensors
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.delta import DELTA
from vedere.models.gguf import read_gguf
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.shards import json_writer, read_tensors
from vedere.plan import TilingPolicy
from vedere.text.chat import get_template
from vedere.text.tokenizer import Tokenizer
from vedere.train.state import STATE, read_checkpoint, write_checkpoint

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "text"))
from small_vocabularies import train_pieces, train_raw, write_gguf

import tiny_internvl

WHOLE = "whole native"
LANGUAGE = DecoderConfig(
    hidden_size=16, ffn_size=24, layers=2, heads=4, kv_heads=2, head_dim=4, vocab_size=40, max_positions=64
)
PICTURE = np.zeros((30, 60, 3), np.uint8)
PATCHES = PatchConfig(width=8, patch=7, tile=28)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
}


def good_checkpoints(root: Path) -> None:
    """One folder for each form that loads."""
    torch.manual_seed(0)
    language = Decoder(LANGUAGE)
    seeing = replace(LANGUAGE, visual_ffn=True)
    mono = MonoInternVL(MonoInternVLConfig(vision=PATCHES, decoder=seeing))
    tower = InternViTConfig(patches=PATCHES, layers=1, heads=2, ffn_size=16)
    save_model(language, root / "language")
    save_model(mono, root / "mono")
    save_model(mono, root / "mono original", layout="original")
    save_model(InternVL(InternVLConfig(vision=tower, decoder=LANGUAGE)), root / "internvl original", layout="original")
    qwen3 = replace(LANGUAGE, qk_norm=True, head_dim=6, moe_size=3, moe_active=2)
    wide = replace(tower, qk_norm=True, qkv_bias=False, norm="rms_norm", select_layer=-2)
    save_model(
        InternVL(InternVLConfig(vision=wide, decoder=qwen3)), root / "internvl qwen3 original", layout="original"
    )
    long = {"rope_original_positions": 32, "rope_short": (1.0, 1.5), "rope_long": (2.0, 3.0)}
    phi3 = replace(LANGUAGE, rope_scaling="longrope", **long)
    save_model(InternVL(InternVLConfig(vision=tower, decoder=phi3)), root / "internvl phi3 original", layout="original")
    for name, seen, spoken in (
        ("internvl native", tower, replace(LANGUAGE, qkv_bias=True)),
        ("internvl qwen3 native", wide, qwen3),
    ):
        save_model(InternVL(InternVLConfig(vision=seen, decoder=spoken)), root / name, layout="hf", image_token=39)
    _whole_native(root / WHOLE)
    save_model(mono, root / "mono in shards", max_shard_bytes=6000)
    own = {f"decoder.{name}": tensor for name, tensor in language.state_dict().items()}
    write_tensors(
        root / "llama", key_map(LANGUAGE, "llama").to_foreign(own), beside={"config.json": json_writer(LLAMA)}
    )
    (root / "llama pickled").mkdir()
    (root / "llama pickled" / "config.json").write_text(json.dumps(LLAMA), encoding="utf-8")
    torch.save(read_tensors(root / "llama"), root / "llama pickled" / "pytorch_model.bin")
    tuned = MonoInternVL(MonoInternVLConfig(vision=PATCHES, decoder=seeing))
    tuned.load_state_dict(own, strict=False)
    save_delta_of(tuned, root / "delta", own, group=8, bits=4)
    _gguf_model(root / "gguf", language)
    raw = train_raw()
    for name in ("tokenizer json", "tokenizer pieces", "tokenizer gguf"):
        (root / name).mkdir()
    raw.save(str(root / "tokenizer json" / "tokenizer.json"))
    write_gguf(root / "tokenizer gguf" / "model.gguf", raw)
    (root / "tokenizer pieces" / "tokenizer.model").write_bytes(train_pieces(vocab_size=400))
    settings = {"add_bos_token": True, "bos_token": "<s>", "added_tokens_decoder": {}}
    for index, text in ((400, "<img>"), (401, "<IMG_CONTEXT>")):
        settings["added_tokens_decoder"][str(index)] = {"content": text, "special": True, "lstrip": False}
    (root / "tokenizer pieces" / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    for folder in sorted((Path(__file__).resolve().parent.parent / "text" / "vocabularies").iterdir()):
        shutil.copytree(folder, root / f"tokenizer {folder.name}")
    for step in (2, 4):
        state = {"stage": 0, "step_in_stage": step, "step": step, "tokens": 9, "loader": {"version": 1}}
        tensors = {"a": torch.full((3, 4), float(step)), "b": torch.ones(2)}
        write_checkpoint(root / "training state", step, tensors, {"m": torch.zeros(3)}, state)


def _whole_native(folder: Path) -> None:
    """All files of a native folder: tokenizer, tiling and stop tokens too."""
    tiny_internvl.tokenizer(folder)
    shape = tiny_internvl.config()
    model, tokenizer, template = tiny_internvl.model(shape), Tokenizer.load(folder), get_template("internvl2_5")
    written = hf_files(folder, tokenizer, template, TilingPolicy(tile=28, patch=7), model.patches, 512)
    save_model(model, folder, layout="hf", image_token=tokenizer.token_id(template.image_context))
    for name, text in written.items():
        (folder / name).write_text(text, encoding="utf-8")


def _gguf_model(folder: Path, language: Decoder) -> None:
    folder.mkdir()
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    config = language.config
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_block_count(config.layers)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_context_length(config.max_positions)
    own = {f"decoder.{name}": tensor.detach() for name, tensor in language.state_dict().items()}
    for name, tensor in keymaps.gguf(config).to_foreign(own).items():
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _header(data: bytes, rng: random.Random) -> tuple[bytes, str]:
    """A safetensors file with a damaged header that still says its own length."""
    size = int.from_bytes(data[:8], "little")
    good = json.loads(data[8 : 8 + size])
    settings = good.get("__metadata__", {}).get("vedere")
    if settings and rng.random() < 0.5:  # the header of a delta stands inside, as text
        inner, what = damage_json(json.loads(settings), rng)
        text, what = dump_json(good | {"__metadata__": {"vedere": dump_json(inner).decode()}}), f"delta {what}"
    else:
        header, what = damage_json(good, rng)
        text = dump_json(header)
    return len(text).to_bytes(8, "little") + text + data[8 + size :], f"header {what}"


class Checkpoints:
    """Copies of good folders with one or two damaged files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        good_checkpoints(root)
        self.names = sorted(folder.name for folder in root.iterdir())

    def case(self, rng: random.Random, folder: Path) -> Case:
        name = rng.choice(self.names)
        place = folder / "given"
        shutil.copytree(self.root / name, place)
        expect, what = "works", "as it is"
        if rng.random() > 0.04:
            expect = "either"
            what = self._damage(name, place, rng)
        open_it = self._opener(name, place)
        finite = expect == "works"
        return Case(what=f"{name}: {what}", names=("given",), expect=expect, run=lambda: open_it(finite))

    def _damage(self, name: str, place: Path, rng: random.Random) -> str:
        files = sorted(path for path in place.rglob("*") if path.is_file())
        file = rng.choice(files)
        draw = rng.random()
        if draw < 0.04:
            file.unlink()
            return "a file removed"
        if draw < 0.08:
            other = self.root / rng.choice(self.names)
            donors = sorted(path for path in other.rglob("*") if path.suffix == file.suffix) or files
            data = rng.choice(donors).read_bytes()
            file.write_bytes(data)
            return "a file of another model"
        if draw < 0.10:
            file.write_bytes(b"")
            return "an empty file"
        if draw < 0.12:
            file.unlink()
            file.mkdir()
            return "a folder in place of a file"
        data = file.read_bytes()
        if file.suffix == ".json" and draw < 0.75:
            value, done = damage_json(json.loads(data), rng)
            file.write_bytes(dump_json(value))
            return f"{file.suffix} {done}"
        if file.suffix == ".safetensors" and draw < 0.6:
            data, done = _header(data, rng)
        elif draw < 0.8:  # where structure is
            start = data[:1500]
            start, done = damage(start, rng)
            data = start + data[1500:]
        else:
            data, done = damage(data, rng)
        file.write_bytes(data)
        return f"{file.suffix} {done}"

    def _opener(self, name: str, place: Path) -> Callable[[bool], None]:
        if name == "training state":
            return lambda finite: check_state(place)
        if name == "gguf":
            return lambda finite: check_gguf(place / "model.gguf")
        if name == "tokenizer gguf":
            return lambda finite: check_tokenizer(Tokenizer.from_gguf(place / "model.gguf"))
        if name == WHOLE:
            return lambda finite: check_whole(place, finite)
        if name.startswith("tokenizer"):
            return lambda finite: check_tokenizer(Tokenizer.load(place))
        if name == "delta":
            language = self.root / "language"
            return lambda finite: check_model(
                load_model(place, torch.float32, language_model=language)
                if (place / DELTA).exists()
                else load_model(place),
                finite,
            )
        return lambda finite: check_model(load_model(place), finite)


def check_model(model: nn.Module, finite: bool) -> None:
    """Exactly the tensors of its config, and it runs."""
    config: Any = model.config
    prefix = "decoder." if isinstance(model, Decoder) else ""
    expected = {name: tuple(shape) for name, shape in key_map(config).own_shapes.items()}
    found = {prefix + name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    law(found == expected, f"tensors differ: {sorted(set(found.items()) ^ set(expected.items()))[:3]}")
    law(len({tensor.dtype for tensor in model.state_dict().values()}) == 1, "mixed dtypes")
    law(not any(tensor.is_meta for tensor in model.state_dict().values()), "a tensor without memory")
    decoder: Decoder = model if isinstance(model, Decoder) else model.decoder  # type: ignore[assignment]
    ids = torch.arange(6) % decoder.config.vocab_size
    with torch.no_grad():
        hidden = decoder(decoder.embed(ids), torch.arange(6), [0, 4, 6])
        logits = decoder.logits(hidden)
        law(logits.shape == (6, decoder.config.vocab_size), f"logits {logits.shape}")
        if finite:
            law(bool(torch.isfinite(logits).all()), "logits are not finite")
        if not isinstance(model, Decoder):
            vision: Any = model.patches
            features = model.encode(torch.zeros(1, 3, vision.tile, vision.tile, dtype=logits.dtype).to(hidden.dtype))
            law(features.shape == (1, vision.tokens_per_tile, decoder.config.hidden_size), f"features {features.shape}")


def check_whole(place: Path, finite: bool) -> None:
    """Model, tokenizer, template and tiling make a prompt together."""
    loaded = open_model(place, device="cpu")
    check_model(loaded.model, finite)
    request = loaded.prompts.make(Question(text="What?", images=[PICTURE])).request
    rows = loaded.model.decoder.config.vocab_size  # type: ignore[union-attr]
    law(min(request.ids) >= 0 and max(request.ids) < rows, "ids outside the vocabulary")


def check_gguf(path: Path) -> None:
    """Config and tensors fit each other."""
    config, tensors = read_gguf(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    law(shapes == {name: tuple(shape) for name, shape in key_map(config).own_shapes.items()}, "tensors differ")


def check_tokenizer(tokenizer: Tokenizer) -> None:
    """It encodes and decodes."""
    for text in ("a red bus and 12 cars", "<img>图🙂\n"):
        ids = tokenizer.encode(text)
        law(all(0 <= index < tokenizer.vocab_size for index in ids), f"ids {ids} of {tokenizer.vocab_size}")
        law(isinstance(tokenizer.decode(ids, skip_special=False), str), "no text")


def check_state(folder: Path) -> None:
    """One of the two states that were written, or what damage that no reader can see has made of it."""
    found = read_checkpoint(folder)
    if found is None:
        law(
            not any((path / STATE).is_file() for path in folder.glob("step-*")),
            "a checkpoint that is there is not seen",
        )
        return
    model, optimizer, state = found
    law(isinstance(state, dict), f"the state is a {type(state).__name__}")
    counts = [state[key] for key in ("stage", "step_in_stage", "step", "tokens") if key in state]
    law(
        "step" in state and all(type(count) is int and count >= 0 for count in counts),
        f"no counts in the state: {state}",
    )
    law(all(isinstance(tensor, torch.Tensor) for tensor in (*model.values(), *optimizer.values())), "no tensors")


def make(folder: Path) -> Checkpoints:
    """The family; its good folders are in ``folder``."""
    return Checkpoints(folder)
