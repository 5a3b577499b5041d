"""Folders like the recorded ones, of other shapes, written by a plain second implementation: they pass, and edited ones fail.

Head counts, one key head, other selected states, both orders of the unshuffle, grids of 3 x 3 tokens, dropped tiles anywhere,
rows without a picture, tied heads, every language model with its biases and rope scalings.
"""

import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from plain_internvl import PlainInternVL
from safetensors.torch import load_file, save_file

import tiny_internvl
from vedere.cli import main
from vedere.models.checkpoints import load_model, read_config, save_model
from vedere.models.patches import PatchConfig
from vedere.verify.run import verify

CONTEXT, START, END = 500, 501, 502
WORDS, NEW = 510, 5


KINDS = {  # fields that follow from the kind, and its rope scalings
    "Qwen2ForCausalLM": ({"qkv_bias": True}, ("none", "dynamic", "linear", "llama3")),
    "Qwen3ForCausalLM": ({"qk_norm": True}, ("none", "dynamic", "linear")),
    "LlamaForCausalLM": ({}, ("none", "dynamic", "linear", "llama3")),
    "InternLM2ForCausalLM": ({}, ("none", "dynamic", "linear")),
    "Phi3ForCausalLM": ({}, ("none", "longrope")),
}


@st.composite
def decoders(draw, kind):
    """Fields of a language model."""
    heads = draw(st.sampled_from((1, 2, 3, 4, 6)))
    kv = draw(st.sampled_from([n for n in (1, 2, 3, 6) if heads % n == 0]))
    size = draw(st.sampled_from((4, 8)))
    own, scalings = KINDS[kind]
    fields = {"heads": heads, "kv_heads": kv, "head_dim": size, "vocab_size": WORDS, "hidden_size": heads * size}
    fields |= {
        "layers": draw(st.integers(1, 3)),
        "rope_theta": draw(st.sampled_from((1e4, 1e6, 5e7))),
        "qkv_bias": False,
    }
    fields |= {"tied_head": draw(st.booleans()), "norm_eps": draw(st.sampled_from((1e-5, 1e-6)))} | own
    if kind in ("LlamaForCausalLM", "InternLM2ForCausalLM"):
        fields["qkv_bias"] = fields["out_bias"] = draw(st.booleans())
    scaling = fields["rope_scaling"] = draw(st.sampled_from(scalings))
    fields["max_positions"] = draw(st.sampled_from((20, 200)))
    if scaling in ("dynamic", "linear", "llama3"):
        fields["rope_factor"] = draw(st.sampled_from((2.0, 3.5, 8.0)))
    if scaling in ("llama3", "longrope"):
        fields["rope_original_positions"] = 16
    if scaling == "llama3":
        fields |= {"rope_low_frequency": 1.0, "rope_high_frequency": draw(st.sampled_from((2.0, 4.0)))}
    if scaling == "longrope":
        fields |= {"rope_short": (1.0, 1.5, 2.0, 3.0)[: size // 2], "rope_long": (1.0, 4.0, 6.0, 9.0)[: size // 2]}
    return fields


@st.composite
def shapes(draw, kinds=tuple(KINDS)):
    """Config of a model: what the recorded folders do not have; and the class of its language model."""
    kind = draw(st.sampled_from(kinds))
    fields = draw(decoders(kind))
    layers = draw(st.integers(4, 5))
    rms = draw(st.booleans())
    patches = PatchConfig(
        width=24, patch=7, tile=draw(st.sampled_from((14, 28, 42))), unshuffle=draw(st.sampled_from(("v1", "v2")))
    )
    tower = {
        "patches": patches,
        "layers": layers,
        "heads": draw(st.sampled_from((1, 2, 3, 8))),
        "select_layer": draw(st.sampled_from((-1, -2, -4, 1))),
        "norm": "rms_norm" if rms else "layer_norm",
        "qk_norm": rms,
        "qkv_bias": not rms,
    }
    return tiny_internvl.config(tower=tower, **fields), kind


def record(folder, shape, tiles, dropped, seed, kind=""):
    """Model, inputs and what the plain implementation says.

    Args:
        folder: Where to.
        shape: Config of the model.
        tiles: For each row of the batch, tiles of each of its pictures.
        dropped: Places among all tiles where a padding tile is put.
        seed: Of weights and inputs.
        kind: Class of the language model; empty: one that fits.
    """
    extras = {"template": "internvl2_5"} | ({"llm_config": {"architectures": [kind]}} if kind else {})
    save_model(tiny_internvl.model(shape, seed), folder, layout="original", extras=extras)
    plain, patches = PlainInternVL(folder), shape.vision.patches
    draw = torch.Generator().manual_seed(seed)
    flags = [1] * sum(map(sum, tiles))
    for place in dropped:
        flags.insert(place % (len(flags) + 1), 0)
    flags = flags or [0]  # a batch without pictures has a tile that is dropped
    pixels = torch.randn(len(flags), 3, patches.tile, patches.tile, generator=draw)
    shown = plain.features(pixels)[torch.tensor(flags) == 1]
    rows = []
    for pictures in tiles:
        row = [1]
        for count in pictures:
            row += [*torch.randint(3, CONTEXT, (3,), generator=draw).tolist(), START]
            row += [CONTEXT] * (count * patches.tokens_per_tile) + [END]
        rows.append(torch.tensor([*row, *torch.randint(3, CONTEXT, (4,), generator=draw).tolist()]))
    length = max(map(len, rows))
    padded = [torch.nn.functional.pad(row, (0, length - len(row))) for row in rows]
    mask = torch.stack([(torch.arange(length) < len(row)).long() for row in rows])
    labels = torch.stack(padded).where((mask == 1) & (torch.arange(length) > 2), torch.tensor(-100))
    logits, losses, used = torch.zeros(len(rows), length, WORDS), [], 0
    for place, (row, pictures) in enumerate(zip(rows, tiles, strict=True)):
        features = shown[used : used + sum(pictures)].flatten(0, 1)
        used += sum(pictures)
        logits[place, : len(row)] = plain.logits(row, features if len(features) else None, CONTEXT, length=length)
        targets = labels[place, 1 : len(row)]
        losses.append((logits[place, : len(row) - 1], targets))
    one, other = (torch.cat(parts) for parts in zip(*losses, strict=True))
    states = plain.states(pixels)
    prompt, first = rows[0], shown[: sum(tiles[0])].flatten(0, 1)
    grown = prompt
    for _ in range(NEW):
        grown = torch.cat([grown, plain.logits(grown, first if len(first) else None, CONTEXT)[-1:].argmax(-1)])
    stored = {
        "pixel_values": pixels,
        "image_flags": torch.tensor(flags)[:, None],
        "input_ids": torch.stack(padded),
        "attention_mask": mask,
        "labels": labels,
        "logits": logits,
        "logits_row0_unpadded": logits[:1, : len(rows[0])].clone(),
        "loss": torch.nn.functional.cross_entropy(one, other, ignore_index=-100)[None],
        "projected_features": plain.features(pixels),
        "vision_hidden_state_0": states[0],
        "vision_hidden_state_2": states[2],
        "vision_last_hidden_state": states[-1],
    }
    if shape.decoder.rope_scaling in (
        "dynamic",
        "longrope",
    ):  # what follows depends on what an instance has seen before
        del stored["logits_row0_unpadded"]
    else:
        stored |= {"prompt_ids": prompt[None], "prompt_num_tiles": torch.tensor([sum(tiles[0])])}
        stored["generated_ids"] = grown[None, len(prompt) :].clone()
    save_file({name: tensor.contiguous() for name, tensor in stored.items()}, folder / "io.safetensors")


def failed(folder):
    return {check.name: (check.error, check.note) for check in verify(folder).checks if not check.passed}


BATCHES = st.lists(st.lists(st.integers(1, 3), max_size=3), min_size=1, max_size=3)


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(shape=shapes(), tiles=BATCHES, dropped=st.lists(st.integers(0, 9), max_size=2), data=st.data())
def test_other_shapes_pass_and_edited_folders_fail(shape, tiles, dropped, data):
    shape, kind = shape
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        record(folder, shape, tiles, dropped, len(dropped), kind)
        assert json.loads((folder / "config.json").read_text())["llm_config"]["architectures"] == [kind]
        assert read_config(folder).model == shape
        report = verify(folder)
        assert not failed(folder)
        names = sorted(check.name for check in report.checks)
        assert len(names) == (6 if shape.decoder.rope_scaling in ("dynamic", "longrope") else 8)
        stored = load_file(folder / "io.safetensors")
        name = data.draw(st.sampled_from(names))
        edited = stored[name].clone()
        at = data.draw(
            st.integers(0, edited[0].numel() - 1)
        )  # row 0: the longest or the only one may be padded elsewhere
        if name == "logits" and not stored["attention_mask"][0, at // WORDS]:
            return
        edited[0].view(-1)[at] += 1 if not edited.is_floating_point() else 1e-3 * max(1.0, float(edited.abs().max()))
        save_file(stored | {name: edited}, folder / "io.safetensors")
        assert set(failed(folder)) == {name}


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ({"select_layer": -2}, {"projected_features"}),
        ({"ps_version": "v1"}, {"projected_features"}),
    ],
)
def test_a_config_that_says_something_else_is_seen(tmp_path, change, seen):
    shape = tiny_internvl.config(vocab_size=WORDS, tower={"layers": 4})
    record(tmp_path, shape, [[2], [1]], [1], seed=3)
    assert not failed(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    wrong = failed(tmp_path)
    assert seen <= set(wrong)
    assert "logits" in wrong
    assert "vision_last_hidden_state" not in wrong
    assert main(["verify", str(tmp_path)]) == 1


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    shape=shapes(("Qwen2ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM", "InternLM2ForCausalLM")), tiles=BATCHES
)
def test_the_native_form_of_the_same_folder_passes_too(shape, tiles):
    shape, kind = shape
    patches = replace(shape.vision.patches, unshuffle="v2")
    vision = replace(shape.vision, patches=patches, norm_eps=1e-6)
    shape = replace(shape, vision=vision)
    with tempfile.TemporaryDirectory() as place:
        own, native = Path(place) / "own", Path(place) / "native"
        record(own, shape, tiles, [], 1, kind)
        save_model(load_model(own), native, layout="hf", extras=read_config(own).extras, image_token=CONTEXT)
        stored = load_file(own / "io.safetensors")
        save_file(stored, native / "io.safetensors")
        report = verify(native)
        assert report.kind == "native InternVL"
        assert not failed(native)
        assert read_config(native).model.vision.select_layer == shape.vision.select_layer


@pytest.mark.parametrize(
    "name", ["internvl-qwen2", "internvl-internlm2-dynntk", "internvl-hf", "mono-internvl", "v2pe"]
)
def test_a_folder_in_our_own_layout_is_verified_with_the_recorded_tensors_beside_it(golden, tmp_path, name):
    assert main(["convert", str(golden / name), str(tmp_path), "--layout", "vedere"]) == 0
    (tmp_path / "io.safetensors").write_bytes((golden / name / "io.safetensors").read_bytes())
    report, original = verify(tmp_path), verify(golden / name)
    assert report.passed
    assert [check.name for check in report.checks] == [check.name for check in original.checks]


def test_a_native_folder_that_was_converted_is_verified_by_its_own_image_token(golden, tmp_path):
    name, token = "internvl-hf", 503
    stored = load_file(golden / name / "io.safetensors")
    for ids in ("input_ids", "prompt_ids"):
        stored[ids] = torch.where(stored[ids] == CONTEXT, token, stored[ids])
    assert (
        main(["convert", str(golden / "internvl-qwen2"), str(tmp_path), "--layout", "hf", "--image-token", str(token)])
        == 0
    )
    save_file(stored, tmp_path / "io.safetensors")
    assert not failed(tmp_path)


def test_the_plain_implementation_is_the_recorded_one(golden):
    """What writes the folders above agrees with what the original implementations wrote."""
    for name in ("internvl-qwen2", "internvl-internlm2", "internvit-6b-style"):
        stored, plain = load_file(golden / name / "io.safetensors"), PlainInternVL(golden / name)
        features = plain.features(stored["pixel_values"])
        torch.testing.assert_close(features, stored["projected_features"], atol=1e-4, rtol=0)
        row = stored["input_ids"][0][stored["attention_mask"][0] == 1]
        kept = features[stored["image_flags"].flatten() == 1].flatten(0, 1)[: int((row == CONTEXT).sum())]
        found = plain.logits(row, kept, CONTEXT)
        torch.testing.assert_close(found, stored["logits_row0_unpadded"][0], atol=1e-4, rtol=0)
