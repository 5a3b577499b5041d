"""XComposer folders of both generations like the recorded ones, of other shapes, written by a plain second implementation."""

import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from plain_xcomposer import PlainFirst, PlainSecond
from safetensors.torch import load_file, save_file
from test_synthesised import failed
from test_synthesised_mono import random_weights

from vedere.models.checkpoints import load_model, read_config, save_model
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.decoder import DecoderConfig
from vedere.models.eva import EvaConfig
from vedere.models.patches import PatchConfig
from vedere.models.perceive_sampler import SamplerConfig
from vedere.models.xcomposer import LowRankConfig, XComposer, XComposerConfig
from vedere.models.xcomposer2 import XComposer2, XComposer2Config
from vedere.verify.run import verify

WORDS = 310
FEW = settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])


@st.composite
def decoders(draw, grouped):
    heads = draw(st.sampled_from((1, 2, 3, 4)))
    size = draw(st.sampled_from((4, 8)))
    kv = draw(st.sampled_from([n for n in (1, 2, 3) if heads % n == 0])) if grouped else heads
    fields = {
        "hidden_size": heads * size,
        "ffn_size": 20,
        "layers": draw(st.integers(1, 3)),
        "heads": heads,
        "kv_heads": kv,
    }
    theta = draw(st.sampled_from((1e4, 1e6))) if grouped else 1e4
    limit = draw(st.sampled_from((16, 400)))
    scaling = draw(st.sampled_from(("none", "dynamic", "linear"))) if grouped else "none"
    fields |= {"rope_scaling": scaling, "rope_factor": 1.5} if scaling != "none" else {}
    return fields | {
        "head_dim": size,
        "vocab_size": WORDS,
        "norm_eps": 1e-5,
        "rope_theta": theta,
        "max_positions": limit,
    }


def sequence(lengths, draw):
    """Text and pictures of so many positions, in turn."""
    row = [1]
    for length in lengths:
        row += [*torch.randint(3, WORDS, (3,), generator=draw).tolist(), *[-100] * length]
    return torch.tensor([*row, *torch.randint(3, WORDS, (4,), generator=draw).tolist()])


def common(plain, ids, features, draw):
    """What both generations record of a sequence."""
    embeds, logits = plain.logits(ids, features)
    labels = ids.where(torch.arange(len(ids)) > 1, torch.tensor(-100))
    text = torch.randint(3, WORDS, (7,), generator=draw)
    text_logits, grown = plain.logits(text, None)[1], ids  # in this order: the rotary tables remember
    for _ in range(3):
        grown = torch.cat([grown, plain.logits(grown, features)[1][-1:].argmax(-1)])
    return {
        "input_ids_with_minus100_for_image": ids[None],
        "inputs_embeds": embeds[None],
        "labels": labels[None],
        "logits": logits[None],
        "loss": torch.nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100)[None],
        "text_only_input_ids": text[None],
        "text_only_logits": text_logits[None],
        "generated_ids": grown[None, len(ids) :],
    }


@FEW
@given(
    fields=decoders(False),
    bias=st.booleans(),
    lora=st.sampled_from(
        ((2, 2.0, ("q", "v", "ffn")), (3, 9.0, ("ffn", "o", "k")), None, (1, 2.0, ("q",)), (2, 1.0, tuple("vkoq")))
    ),
    sampler=st.tuples(st.integers(1, 5), st.integers(1, 4), st.sampled_from((1, 2, 3))),
    tower=st.tuples(st.sampled_from((14, 28)), st.integers(1, 3), st.sampled_from((1, 2, 4)), st.booleans()),
    pictures=st.integers(1, 3),
)
def test_other_folders_of_the_first_generation_pass(fields, bias, lora, sampler, tower, pictures):
    queries, layers, every = sampler
    side, depth, heads, tower_bias = tower
    shape = XComposerConfig(
        decoder=DecoderConfig(**fields, qkv_bias=bias, out_bias=bias),
        vision=EvaConfig(
            patches=PatchConfig(width=16, patch=7, tile=side, downsample=1),
            layers=depth,
            heads=heads,
            ffn_size=40,
            qkv_bias=tower_bias,
        ),
        sampler=SamplerConfig(
            queries=queries, width=12, layers=layers, heads=3, ffn_size=20, picture_width=16, cross_every=every
        ),
        lora=None if lora is None else LowRankConfig(rank=lora[0], alpha=lora[1], maps=lora[2]),
    )
    draw = torch.Generator().manual_seed(side)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(random_weights(XComposer(shape), 5), folder, layout="original")
        assert read_config(folder).model == shape
        plain = PlainFirst(folder)
        pixels = torch.randn(pictures, 3, side, side, generator=draw)
        embeds = plain.image_embeds(pixels)
        seen = plain.tower(pixels)
        stored = {"pixel_values": pixels, "vit_output": seen, "ln_vision_output": plain.norm(seen, "ln_vision", 1e-5)}
        stored |= {"sampler_output": plain.sampled(stored["ln_vision_output"]), "image_embeds": embeds}
        stored |= common(plain, sequence([queries + 2] * pictures, draw), embeds, draw)
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "io.safetensors")
        report = verify(folder)
        assert report.kind == "XComposer"
        assert not failed(folder)
        assert len(report.checks) == 9
        save_model(load_model(folder), folder / "own", layout="vedere")
        assert verify(folder, model=folder / "own").passed


@FEW
@given(
    fields=decoders(True),
    rank=st.sampled_from(((1, 1.0), (3, 6.0))),
    tower=st.tuples(st.sampled_from((14, 28, 42)), st.integers(1, 3), st.sampled_from((1, 2, 4))),
    views=st.sampled_from(("hd", "square")),
    grids=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=3),
)
def test_other_folders_of_the_second_generation_pass(fields, rank, tower, views, grids):
    side, depth, heads = tower
    if views == "square":  # XComposer2-7B and -VL: one tile a picture, also of an odd number of patches
        side, grids = side - 7, [(1, 1)] * len(grids)
    shape = XComposer2Config(
        vision=ClipViTConfig(
            patches=PatchConfig(width=16, patch=7, tile=side, downsample=2 if views == "hd" else 1, bias=False),
            layers=depth,
            heads=heads,
            ffn_size=20,
        ),
        decoder=DecoderConfig(**fields, partial_rank=rank[0], partial_alpha=rank[1]),
        views=views,
    )
    draw = torch.Generator().manual_seed(side)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(random_weights(XComposer2(shape), 6), folder, layout="original")
        assert read_config(folder).model == shape
        plain = PlainSecond(folder)
        canvases = [torch.randn(3, rows * side, columns * side, generator=draw) for columns, rows in grids]
        tokens = [plain.picture(canvas) for canvas in canvases]
        features = plain.project(torch.cat(tokens))
        ids = sequence([len(part) for part in tokens], draw)
        stored = {f"pixel_values.{number}": canvas[None] for number, canvas in enumerate(canvases)}
        stored |= {
            "vit_output": torch.cat(tokens)[None],
            "projected_features": features[None],
            "im_mask": (ids < 0)[None],
        }
        stored |= {"image_token_lengths": torch.tensor([len(part) for part in tokens])}
        stored |= common(plain, ids, features, draw)
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "io.safetensors")
        report = verify(folder)
        assert report.kind == "XComposer2"
        assert not failed(folder)
        assert len(report.checks) == 9
        save_model(load_model(folder), folder / "own", layout="vedere")
        assert verify(folder, model=folder / "own").passed


@pytest.mark.parametrize("name", ["xcomposer-1", "xcomposer2-4khd-two-images"])
def test_the_plain_implementations_are_the_recorded_ones(golden, name):
    stored = load_file(golden / name / "io.safetensors")
    ids = stored["input_ids_with_minus100_for_image"][0]
    if name == "xcomposer-1":
        plain = PlainFirst(golden / name)
        features = plain.image_embeds(stored["pixel_values"])
        torch.testing.assert_close(features, stored["image_embeds"], atol=1e-4, rtol=0)
    else:
        plain = PlainSecond(golden / name)
        features = plain.project(torch.cat([plain.picture(stored[f"pixel_values.{k}"][0]) for k in (0, 1)]))
        torch.testing.assert_close(features, stored["projected_features"][0], atol=1e-4, rtol=0)
    torch.testing.assert_close(plain.logits(ids, features)[1], stored["logits"][0], atol=1e-4, rtol=0)
