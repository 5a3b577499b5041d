"""Mono-InternVL and V2PE folders like the recorded ones, of other shapes, written by the plain second implementation."""

import tempfile
from pathlib import Path

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from plain_internvl import PlainInternVL
from safetensors.torch import load_file, save_file
from test_synthesised import CONTEXT, END, START, WORDS, decoders, failed

import tiny_internvl
from vedere.models.checkpoints import read_config, save_model
from vedere.models.decoder import DecoderConfig
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.verify.run import verify

ROWS = st.lists(st.lists(st.integers(1, 3), max_size=2), min_size=1, max_size=2)
LAYOUTS = st.lists(st.integers(1, 3), max_size=3)


def ids_of(tiles, tokens, draw):
    """Text and pictures of so many tiles, in turn."""
    row = [1]
    for count in tiles:
        row += [*torch.randint(3, CONTEXT, (3,), generator=draw).tolist(), START, *[CONTEXT] * (count * tokens), END]
    return torch.tensor([*row, *torch.randint(3, CONTEXT, (4,), generator=draw).tolist()])


def random_weights(model, seed):
    """Weights that are neither zero nor one."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * (0.3 if parameter.ndim > 1 else 0.1) + (parameter.ndim == 1))
    return model.eval()


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    fields=decoders("InternLM2ForCausalLM"),
    rows=ROWS,
    tile=st.sampled_from((14, 28, 42)),
    order=st.sampled_from(("v1", "v2")),
    dropped=st.booleans(),
)
def test_other_mono_folders_pass(fields, rows, tile, order, dropped):
    shape = MonoInternVLConfig(
        vision=PatchConfig(width=24, patch=7, tile=tile, unshuffle=order),
        decoder=DecoderConfig(**fields, ffn_size=48, visual_ffn=True),
    )
    draw = torch.Generator().manual_seed(tile)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_model(
            random_weights(MonoInternVL(shape), tile), folder, layout="original", extras={"template": "internlm2-chat"}
        )
        assert read_config(folder).model == shape
        plain, tokens = PlainInternVL(folder), shape.vision.tokens_per_tile
        flags = [0] * dropped + [1] * sum(map(sum, rows)) or [0]
        pixels = torch.randn(len(flags), 3, tile, tile, generator=draw)
        features = plain.features(pixels)
        shown = features[torch.tensor(flags) == 1]
        sequences = [ids_of(tiles, tokens, draw) for tiles in rows]
        length = max(map(len, sequences))
        mask = torch.stack([(torch.arange(length) < len(ids)).long() for ids in sequences])
        padded = torch.stack([torch.nn.functional.pad(ids, (0, length - len(ids))) for ids in sequences])
        labels = padded.where((mask == 1) & (torch.arange(length) > 2), torch.tensor(-100))
        logits, used = torch.zeros(len(rows), length, WORDS), 0
        for row, (ids, tiles) in enumerate(zip(sequences, rows, strict=True)):
            own = shown[used : used + sum(tiles)].flatten(0, 1)
            used += sum(tiles)
            logits[row, : len(ids)] = plain.logits(ids, own if len(own) else None, CONTEXT, length=length)
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
        )
        stored = {
            "pixel_values": pixels,
            "image_flags": torch.tensor(flags)[:, None],
            "input_ids": padded,
            "attention_mask": mask,
            "labels": labels,
            "projected_features": features,
            "visual_token_mask": (padded == CONTEXT)[..., None],
            "logits": logits,
            "loss": loss[None],
        }
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "io.safetensors")
        report = verify(folder)
        assert report.kind == "Mono-InternVL"
        assert not failed(folder)
        assert {check.name for check in report.checks} == {"projected_features", "visual_token_mask", "logits", "loss"}


def plain_positions(ids, delta):
    """Positions token by token: text by one, the k-th visual token of a picture k steps behind its start, then rounded up."""
    positions, at = [], 0.0
    for place, index in enumerate(ids.tolist()):
        if index == CONTEXT:
            at += delta
        elif place:
            at = -(-at // 1) + 1  # the next whole number behind what came before
        positions.append(at)
    return torch.tensor(positions)


@settings(max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    fields=decoders("InternLM2ForCausalLM"),
    tiles=LAYOUTS,
    denominators=st.lists(st.sampled_from((1, 2, 4, 8, 16, 32, 64, 128, 256)), min_size=1, max_size=3, unique=True),
    select=st.sampled_from((-1, -2)),
)
def test_other_v2pe_folders_pass(fields, tiles, denominators, select):
    fields = fields | {"v2pe": True}
    shape = tiny_internvl.config(tower={"layers": 3, "select_layer": select}, **fields)
    draw = torch.Generator().manual_seed(len(tiles))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        extras = {"template": "internlm2-chat", "llm_config": {"architectures": ["InternLM2ForCausalLM"]}}
        save_model(tiny_internvl.model(shape, 4), folder, layout="original", extras=extras)
        assert read_config(folder).model == shape
        plain = PlainInternVL(folder)
        pixels = torch.randn(max(1, sum(tiles)), 3, tiny_internvl.TILE, tiny_internvl.TILE, generator=draw)
        features = plain.features(pixels)
        ids = ids_of(tiles, shape.vision.patches.tokens_per_tile, draw)
        stored = {"pixel_values": pixels, "input_ids": ids[None], "projected_features": features}
        stored["image_flags"] = torch.tensor([[int(bool(tiles))]] * len(pixels))
        for denominator in denominators:
            positions = plain_positions(ids, 1 / denominator)
            shown = features.flatten(0, 1) if tiles else None
            stored[f"position_ids.d{denominator}"] = positions[None]
            stored[f"logits.d{denominator}"] = plain.logits(ids, shown, CONTEXT, positions)[None]
            grown, at = ids, positions
            for _ in range(4):
                step = plain.logits(grown, shown, CONTEXT, at)[-1:].argmax(-1)
                grown, at = torch.cat([grown, step]), torch.cat([at, at[-1:] + 1])
            stored[f"generated_ids.d{denominator}"] = grown[None, len(ids) :]
        save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "io.safetensors")
        report = verify(folder)
        assert report.kind == "V2PE"
        assert not failed(folder)
        assert len(report.checks) == 1 + 3 * len(denominators)


def test_the_plain_positions_and_experts_are_the_recorded_ones(golden):
    stored = load_file(golden / "v2pe" / "io.safetensors")
    for denominator in (1, 4, 256):
        found = plain_positions(stored["input_ids"][0], 1 / denominator)
        assert torch.equal(found.double(), stored[f"position_ids.d{denominator}"][0].double())
    stored, plain = load_file(golden / "mono-internvl" / "io.safetensors"), PlainInternVL(golden / "mono-internvl")
    row = stored["input_ids"][0][stored["attention_mask"][0] == 1]
    features = plain.features(stored["pixel_values"])
    torch.testing.assert_close(features, stored["projected_features"], atol=1e-4, rtol=0)
    kept = features[stored["image_flags"].flatten() == 1].flatten(0, 1)[: int((row == CONTEXT).sum())]
    found = plain.logits(row, kept, CONTEXT)
    torch.testing.assert_close(found, stored["logits_row0_unpadded"][0], atol=1e-4, rtol=0)
