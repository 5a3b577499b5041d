"""Estimates of memory against real models, real caches and measured tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import tiny_xcomposer2
from tiny_models import VOCABULARY, tiny_config, tiny_model
from vedere.errors import CheckpointError, ConfigError
from vedere.infer.cache import Cache
from vedere.infer.engine import Engine, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.activations import prefill_bytes, training_bytes
from vedere.models.clip_vit import ClipViT
from vedere.models.decoder import Decoder
from vedere.models.footprint import (
    MINI,
    dtype_of,
    footprint,
    kv_bytes_per_token,
    learning_parameters,
    model_shape,
    optimizer_bytes,
    parameters,
    training_footprint,
)
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.mono_internvl import MonoInternVL
from vedere.models.published import ModelConfig, native_config
from vedere.models.releases import MONO_INTERNVL_2B, RELEASES
from vedere.plan import HDPolicy, plan_media
from vedere.train.losses import chunked_cross_entropy
from vedere.train.optim import Optimizer
from vedere.train.stages import (
    EVERYTHING,
    TEXT_ATTENTION,
    VISUAL_ATTENTION,
    VISUAL_PARTS,
    OptimConfig,
    set_trainable,
)

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])


def modular(**tower: Any) -> InternVLConfig:
    config = tiny_config(visual_ffn=False, visual_attention=False, max_positions=4096)
    shape: dict[str, Any] = {"patches": config.vision, "layers": 3, "heads": 2, "ffn_size": 64}
    return InternVLConfig(vision=InternViTConfig(**(shape | tower)), decoder=config.decoder)


SIX_B = {"norm": "rms_norm", "qkv_bias": False, "qk_norm": True}
CONFIGS: dict[str, ModelConfig] = {
    "mini": MINI,
    "mono-internvl-2b": MONO_INTERNVL_2B,
    "text only": tiny_config().decoder,
    "biased, untied": tiny_config(qkv_bias=True, out_bias=True, ffn_bias=True, visual_attention=False),
    "tied": tiny_config(tied_head=True, kv_heads=1),
    "tower": modular(),
    "tower of the 6B kind": modular(**SIX_B),
}


def build(config: ModelConfig) -> Any:
    if isinstance(config, InternVLConfig):
        return InternVL(config)
    return Decoder(config) if not hasattr(config, "decoder") else MonoInternVL(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_those_of_the_real_model(name: str) -> None:
    with torch.device("meta"):
        model = build(CONFIGS[name])
    counted = parameters(CONFIGS[name])
    assert counted.total == sum(parameter.numel() for parameter in model.parameters())
    assert counted.total == sum(counted.parts.values())


def test_active_parameters_are_those_that_a_token_reaches() -> None:
    """Gradients say which parameters a text token and a visual token touch."""
    model = tiny_model()
    counted = parameters(model.config)
    text = torch.arange(9)
    model(text, torch.arange(9), [0, 9]).sum().backward()
    touched = sum(p.numel() for n, p in model.named_parameters() if p.grad is not None and bool(p.grad.any()))
    assert (
        touched <= counted.active_text
    )  # rows of the embedding that do not occur have no gradient, the head is not asked
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    everything = dict(model.named_parameters())
    assert (
        counted.active_text == sum(everything[n].numel() for n in reached) + everything["decoder.head.weight"].numel()
    )
    model.zero_grad()
    types = torch.ones(4, dtype=torch.uint8)
    model(torch.zeros(4, dtype=torch.long), torch.arange(4), [0, 4], types, torch.randn(1, 3, 28, 28)).sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None} - {"decoder.embed.weight"}
    # the unused class token belongs to the patch embedding of both checkpoint formats
    assert counted.active_visual == sum(everything[n].numel() for n in reached | {"vision.cls"})


def test_published_sizes_of_mono_internvl() -> None:
    counted = parameters(MONO_INTERNVL_2B)
    assert round(counted.total / 1e9, 2) == 3.11
    assert round(counted.parts["visual feed-forward experts"] / 1e6, 2) == 1207.96
    assert round((counted.parts["embedding"] + counted.parts["head"]) / 1e6, 2) == 379.10
    assert round(footprint(MONO_INTERNVL_2B, dtype=torch.bfloat16, prompt=1).weights / 1e9, 2) == 6.22


@BOTH
def test_keys_and_values_are_those_of_a_real_cache(dtype: torch.dtype) -> None:
    config = tiny_config()
    cache = Cache(config.decoder, dtype=dtype, slots=3, capacity=128)
    assert kv_bytes_per_token(config, dtype) * 3 * 128 == cache.bytes


@BOTH
@pytest.mark.parametrize("trains", [VISUAL_PARTS, EVERYTHING])
def test_optimiser_bytes_are_those_of_a_real_step(dtype: torch.dtype, trains: tuple[str, ...]) -> None:
    model = tiny_model().to(dtype)
    learning = set_trainable(model, trains)
    optimizer = Optimizer(model, OptimConfig(), 10)
    for parameter in optimizer.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    held = sum(p.grad.nbytes for p in optimizer.parameters.values() if p.grad is not None)
    if dtype == torch.bfloat16:  # float32 gradients of the masters stand beside them
        held += sum(p.numel() * 4 for p in optimizer.parameters.values())
    optimizer.collect()
    optimizer.step(1.0)
    state = optimizer.state()
    held += sum(tensor.nbytes for name, tensor in state.items() if not name.startswith("step"))
    count = learning_parameters(model.config, trains)
    assert count == sum(dict(model.named_parameters())[name].numel() for name in learning)
    assert optimizer_bytes(count, dtype) == held


def saved_bytes(model: Any, lengths: Sequence[int], tiles: int) -> tuple[int, dict[str, Any]]:
    """Bytes that autograd keeps of one pack, parameters aside, and the arguments that describe the pack."""
    span = model.patches.tokens_per_tile * tiles
    types, positions, borders = [], [], [0]
    for length in lengths:
        kinds = torch.zeros(length, dtype=torch.uint8)
        kinds[2 : 2 + span] = 1
        types.append(kinds)
        positions.append(torch.arange(length))
        borders.append(borders[-1] + length)
    side = model.patches.tile
    pixels = torch.randn(tiles * len(lengths), 3, side, side)
    return saved_of(model, torch.cat(types), torch.cat(positions), borders, pixels)


def saved_of(
    model: Any, span_types: Tensor, positions: Tensor, borders: list[int], pixels: Tensor
) -> tuple[int, dict[str, Any]]:
    """`saved_bytes` of a pack that stands already; all of its text is predicted."""
    pixels = pixels.to(model.dtype)
    rows = (span_types == 0).nonzero()[:, 0]
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        ids = torch.randint(0, VOCABULARY, (borders[-1],))
        hidden = model(ids, positions, borders, span_types, pixels)
        targets, ones = torch.zeros(len(rows), dtype=torch.long), torch.ones(len(rows))
        chunked_cross_entropy(hidden[rows], model.decoder.head_weight, targets, ones)
    about = {"tokens": borders[-1], "tiles": len(pixels), "document": borders[1], "targets": len(rows)}
    return sum(kept.values()), about


@BOTH
@pytest.mark.parametrize(
    "trains", [VISUAL_PARTS, VISUAL_PARTS + VISUAL_ATTENTION, VISUAL_PARTS + TEXT_ATTENTION, EVERYTHING]
)
@pytest.mark.parametrize(("lengths", "tiles"), [([40] * 5, 4), ([300, 300], 40)], ids=["explicit", "sdpa"])
def test_training_activations_are_what_autograd_keeps(
    trains: tuple[str, ...], lengths: list[int], tiles: int, dtype: torch.dtype
) -> None:
    model = tiny_model(max_positions=4096).to(dtype)
    set_trainable(model, trains)
    measured, about = saved_bytes(model, lengths, tiles)
    assert training_bytes(model.config, dtype=dtype, trains=trains, **about) == pytest.approx(measured, rel=0.15)


@BOTH
@pytest.mark.parametrize("tower", [{}, SIX_B], ids=["300M", "6B"])
@pytest.mark.parametrize("trains", [("projector.*",), ("vision.*", "projector.*"), EVERYTHING])
def test_training_activations_of_a_tower(trains: tuple[str, ...], tower: dict[str, Any], dtype: torch.dtype) -> None:
    model = InternVL(modular(**tower)).to(dtype)
    set_trainable(model, trains)
    measured, about = saved_bytes(model, [40] * 4, 4)
    assert training_bytes(model.config, dtype=dtype, trains=trains, **about) == pytest.approx(measured, rel=0.15)


HD_PARTS = ("vision.*", "projector.*", "row_end", "separator", "decoder.layers.*.partial.*")


@BOTH
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("trains", [HD_PARTS, EVERYTHING], ids=["pretraining", "sft"])
def test_training_activations_of_views(trains: tuple[str, ...], checkpoint: bool, dtype: torch.dtype) -> None:
    """XComposer2-4KHD: tower, partial LoRA, four documents of a picture of 3 x 2 views each."""
    model = tiny_xcomposer2.model(tiny_xcomposer2.shape(layers=4)).to(dtype)
    set_trainable(model, trains)
    for part in model.modules():
        if isinstance(part, (Decoder, ClipViT)):
            part.checkpoint_layers = checkpoint
    spans = plan_media(300, 200, HDPolicy(tile=56, limit=6)).spans
    types = [0, *(int(kind) for kind, length in spans for _ in range(length)), *[0] * 14]
    span_types = torch.tensor(types * 4, dtype=torch.uint8)
    length, tokens = len(types), 4 * len(types)
    positions, borders = torch.arange(length).repeat(4), list(range(0, tokens + 1, length))
    measured, about = saved_of(model, span_types, positions, borders, torch.randn(28, 3, 56, 56))
    told = training_bytes(model.config, dtype=dtype, trains=trains, checkpoint_layers=checkpoint, **about)
    if checkpoint:  # one layer of each kind exists beside what is kept
        assert measured < told < training_bytes(model.config, dtype=dtype, trains=trains, **about)
    else:
        assert told == pytest.approx(measured, rel=0.15)


def test_recomputed_layers_keep_their_inputs_and_one_layer() -> None:
    model = tiny_model(layers=6)
    set_trainable(model, VISUAL_PARTS)
    whole, about = saved_bytes(model, [40] * 5, 4)
    model.decoder.checkpoint_layers = True
    measured, _ = saved_bytes(model, [40] * 5, 4)
    estimate = training_bytes(model.config, dtype=torch.float32, trains=VISUAL_PARTS, checkpoint_layers=True, **about)
    one_layer = (whole - measured) / 6
    assert measured < 0.5 * whole
    assert estimate == pytest.approx(measured + one_layer, rel=0.15)


class Peak(TorchDispatchMode):
    """Largest sum of living storages that operations made."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        self.alive = {place: entry for place, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in inputs and storage.nbytes():
                    self.alive[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self.bytes = max(self.bytes, sum(size for _, size in self.alive.values()))
        return out


@BOTH
@pytest.mark.parametrize(
    ("tiles", "text", "chunk"),
    [(40, 40, 512), (100, 40, 64), (0, 1000, 128), (0, 400, 512)],
    ids=["encoding", "encoding, chunks", "mask of chunks", "feed-forward"],
)
def test_prefill_activations_are_what_the_engine_holds(tiles: int, text: int, chunk: int, dtype: torch.dtype) -> None:
    model = tiny_model(max_positions=4096).to(dtype)
    visual = tiles * model.patches.tokens_per_tile
    types = torch.zeros(text + visual, dtype=torch.uint8)
    types[3 : 3 + visual] = 1
    request = Request(
        ids=torch.zeros(text + visual, dtype=torch.long),
        span_types=types,
        pixels=torch.zeros(tiles, 3, 28, 28, dtype=torch.uint8) if tiles else None,
        sampling=SamplingParams(max_new_tokens=2),
    )
    engine = Engine(model, chunk=chunk)
    engine._cache = Cache(model.config.decoder, dtype=dtype, capacity=len(types) + 8)
    with Peak() as peak:
        list(engine.generate([request]))
    estimate = prefill_bytes(model.config, dtype=dtype, prompt=len(types), tiles=tiles, chunk=chunk)
    assert estimate == pytest.approx(peak.bytes, rel=0.15)


def test_footprint_adds_up() -> None:
    plan = footprint(MINI, dtype=torch.bfloat16, prompt=500, new_tokens=100, tiles=4)
    assert plan.weights == 2 * plan.parameters.total
    assert plan.kv == 600 * plan.kv_per_token
    assert plan.kv_per_token == 2 * 30 * 3 * 64 * 2
    assert plan.total == plan.weights + plan.kv + plan.activations
    assert plan.fits
    assert not footprint(MINI, dtype=torch.bfloat16, prompt=8192, new_tokens=1).fits
    assert footprint(MINI, dtype=torch.float32, prompt=500).weights == 2 * plan.weights


def test_training_footprint_of_the_recipe_scale() -> None:
    plan = training_footprint(
        MINI, dtype=torch.float32, trains=VISUAL_PARTS, tokens=2048, tiles=50, document=40, targets=400
    )
    counted = parameters(MINI)
    visual = ("patch embedding", "projector", "visual feed-forward experts")
    assert plan.learning == sum(counted.parts[part] for part in visual)
    assert plan.optimizer == 12 * plan.learning
    assert plan.total == plan.weights + plan.optimizer + plan.activations
    recomputed = training_footprint(
        MINI, dtype=torch.float32, trains=VISUAL_PARTS, tokens=2048, tiles=50, document=40, checkpoint_layers=True
    )
    assert recomputed.activations < plan.activations / 4


def test_shapes_by_name_and_by_folder(tmp_path: Path) -> None:
    assert model_shape("mini").model is MINI
    assert model_shape("mono-internvl-2b").model is MONO_INTERNVL_2B
    extras = {"max_dynamic_patch": 6, "use_thumbnail": False}
    (tmp_path / "config.json").write_text(json.dumps(native_config(tiny_config(), extras)))
    shape = model_shape(tmp_path)
    assert shape.model == tiny_config()
    assert shape.extras == extras


def test_a_folder_that_is_called_like_a_release_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert model_shape("InternVL3-8B").model is RELEASES["internvl3-8b"].model
    (tmp_path / "InternVL3-8B").mkdir()
    (tmp_path / "InternVL3-8B" / "config.json").write_text(json.dumps(native_config(tiny_config(), {})))
    assert model_shape("InternVL3-8B").model == tiny_config()


def test_messages(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown model 'mino'; did you mean 'mini'\? .*no such folder"):
        model_shape("mino")
    with pytest.raises(ConfigError, match=r"no config.json in it"):
        model_shape(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="JSON"):
        model_shape(tmp_path)
    with pytest.raises(ConfigError, match=r"unknown dtype 'bf61'; did you mean 'bf16'\?"):
        dtype_of("bf61")
    with pytest.raises(ConfigError, match="float16 overflows"):
        footprint(MINI, dtype=torch.float16, prompt=1)
    towered = footprint(modular(), dtype=torch.float16, prompt=1)
    assert towered.weights == 2 * towered.parameters.total
    assert math.isclose(towered.total, towered.weights + towered.kv + towered.activations)
