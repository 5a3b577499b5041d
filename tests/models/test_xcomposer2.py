"""XComposer2's line: files, order of tokens, partial LoRA on image rows alone, and an answer end to end."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import tiny_xcomposer2
import vedere
from vedere.errors import CheckpointError, ConfigError, PromptError
from vedere.models.checkpoints import key_map, load_model, read_config, save_model
from vedere.models.clip_vit import ClipViTConfig
from vedere.models.footprint import parameters
from vedere.models.low_rank import LowRank
from vedere.models.patches import PatchConfig
from vedere.models.releases import RELEASES
from vedere.models.xcomposer2 import XComposer2, assemble
from vedere.plan import HDPolicy, SpanKind, grids_of, plan_media


def types_of(*sizes, policy=None):
    """Text, then each picture, text between them; as a list of span types."""
    found = [0, 0]
    for size in sizes:
        spans = plan_media(*size, policy or HDPolicy(tile=56, limit=6)).spans
        found += [int(kind) for kind, length in spans for _ in range(length)] + [0]
    return found


def test_rows_run_across_views_and_all_kinds_stand_where_the_plan_says():
    views = torch.arange(7 * 4).float().view(7, 4, 1)  # 3 x 2 views of 2 x 2 tokens behind the global one
    tokens = assemble(views, [(3, 2)], torch.tensor([-1.0]), torch.tensor([-2.0])).flatten().tolist()
    assert tokens[:7] == [0, 1, -1, 2, 3, -1, -2]
    assert tokens[7:14] == [4, 5, 8, 9, 12, 13, -1]
    assert tokens[14:21] == [6, 7, 10, 11, 14, 15, -1]
    spans = plan_media(300, 200, HDPolicy(tile=56, limit=6)).spans
    kinds = [kind for kind, length in spans for _ in range(length)]
    assert [kind == SpanKind.ROW_END for kind in kinds] == [token == -1 for token in tokens]
    assert [kind == SpanKind.SEPARATOR for kind in kinds] == [token == -2 for token in tokens]


@given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), max_size=4), st.integers(1, 12))
def test_grids_are_read_back_from_span_types(sizes, limit):
    policy = HDPolicy(tile=56, limit=limit)
    plans = [plan_media(*size, policy) for size in sizes]
    assert grids_of(types_of(*sizes, policy=policy), 2) == tuple(plan.grid for plan in plans)
    together = [int(kind) for plan in plans for kind, length in plan.spans for _ in range(length)]
    assert grids_of(together, 2) == tuple(plan.grid for plan in plans)


@pytest.mark.parametrize("cut", [1, 5, 8, 20])
def test_span_types_that_no_plan_writes_are_refused(cut):
    types = [kind for kind in types_of((300, 200)) if kind]
    with pytest.raises(PromptError, match="plan and render them with the model's HDPolicy"):
        grids_of(types[:-cut], 2)


def test_partial_lora_touches_image_rows_alone():
    built = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    types = torch.tensor(types_of((300, 200)))
    length, image = len(types), (types != 0).nonzero().flatten()
    embeds = torch.randn(length, 32)
    rows = []
    original = LowRank.add_to

    def counted(self, out, x):
        rows.append(len(x))
        return original(self, out, x)

    LowRank.add_to = counted
    try:
        with torch.no_grad():
            built.decoder(embeds, torch.arange(length), [0, length], types)
            assert rows == [len(image)] * 8
            text = built.decoder(embeds[:20], torch.arange(20), [0, 20])
            assert len(rows) == 8  # none for text
    finally:
        LowRank.add_to = original
    plain = tiny_xcomposer2.model(tiny_xcomposer2.shape()).decoder
    for layer in plain.layers:
        for module in (layer.attention, layer.ffn):
            del module.partial
    with torch.no_grad():
        assert torch.equal(plain(embeds[:20], torch.arange(20), [0, 20]), text)


def test_gradients_of_partial_lora_equal_a_masked_full_computation():
    torch.manual_seed(0)
    built = tiny_xcomposer2.model(tiny_xcomposer2.shape())
    types = torch.tensor(types_of((300, 200)))
    length = len(types)
    embeds = torch.randn(length, 32)
    built.decoder(embeds, torch.arange(length), [0, length], types).square().sum().backward()
    low = built.decoder.layers[0].attention.partial["qkv"]
    assert low.lora_A.grad.abs().sum() > 0
    step = 1e-3 * torch.sign(low.lora_B.grad)
    with torch.no_grad():
        before = built.decoder(embeds, torch.arange(length), [0, length], types).double().square().sum()
        expected = float((low.lora_B.grad * step).sum())
        low.lora_B.add_(step)
        after = built.decoder(embeds, torch.arange(length), [0, length], types).double().square().sum()
    assert float(after - before) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("views", ["hd", "square"])
def test_original_folders_load_from_mixed_bin_shards_and_go_back(tmp_path, views):
    source = tiny_xcomposer2.folder(tmp_path / "a", views)
    loaded = load_model(source)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
    save_model(loaded, tmp_path / "b", "original", extras=read_config(source).extras)
    again = load_model(tmp_path / "b")
    assert again.config == loaded.config == tiny_xcomposer2.shape(views)
    state = again.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in loaded.state_dict().items())
    save_model(loaded, tmp_path / "c")
    assert load_model(tmp_path / "c").config == loaded.config


def test_a_missing_factor_and_a_surplus_one_are_refused(tmp_path):
    source = tiny_xcomposer2.folder(tmp_path)
    file = next(tmp_path.glob("*1-of-00002.bin"))
    tensors = torch.load(file, weights_only=True)
    name = next(name for name in tensors if "Plora_B" in name)
    index = json.loads((tmp_path / "pytorch_model.bin.index.json").read_text())
    tensors[name.replace("Plora_B", "Plora_C")] = tensors.pop(name)
    index["weight_map"][name.replace("Plora_B", "Plora_C")] = index["weight_map"].pop(name)
    torch.save(tensors, file)
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="Plora_B"):
        load_model(source)


def test_tile_and_views_follow_from_the_tensors_where_the_config_is_silent(tmp_path):
    source = tiny_xcomposer2.folder(tmp_path)
    config = json.loads((source / "config.json").read_text())
    del config["sub_image_size"]
    (source / "config.json").write_text(json.dumps(config))
    assert load_model(source).config == tiny_xcomposer2.shape()


INTERNLM2_7B, INTERNLM2_1_8B = 7_737_708_544, 1_889_110_016  # printed by their own cards, rounded: 7.74 B, 1.89 B
BLOCKS_OF_CLIP = 24 * (4 * 1024 * 1024 + 2 * 1024 * 4096 + 4 * 1024 + 4096 + 1024 + 4 * 1024)


@pytest.mark.parametrize(
    ("name", "language", "width", "layers", "partial", "tile", "merged", "tokens"),
    [  # partial: sum over the five maps of inputs and outputs
        ("internlm-xcomposer2-4khd-7b", INTERNLM2_7B, 4096, 32, 10240 + 8192 + 3 * 18432, 336, 4096, 144),
        ("internlm-xcomposer2-7b", INTERNLM2_7B, 4096, 32, 10240 + 8192 + 3 * 18432, 224, 1024, 256),
        ("internlm-xcomposer2-vl-7b", INTERNLM2_7B, 4096, 32, 10240 + 8192 + 3 * 18432, 490, 1024, 1225),
        ("internlm-xcomposer2-vl-1.8b", INTERNLM2_1_8B, 2048, 24, 6144 + 4096 + 3 * 10240, 490, 1024, 1225),
        ("internlm-xcomposer2d5-7b", INTERNLM2_7B, 4096, 32, 10240 + 8192 + 3 * 18432, 560, 4096, 400),
    ],
)
def test_totals_of_the_siblings(name, language, width, layers, partial, tile, merged, tokens):
    release = RELEASES[name]
    assert release.tokens_per_tile == tokens
    tower = 1024 * 3 * 14 * 14 + 1024 * (2 + (tile // 14) ** 2) + 2 * 1024 + BLOCKS_OF_CLIP
    projector = merged * width + width * width + 2 * width
    vectors = 2 * merged if merged == 4096 else 0
    total = language + layers * 256 * partial + tower + projector + vectors
    with torch.device("meta"):
        built = XComposer2(release.model)
    assert sum(parameter.numel() for parameter in built.parameters()) == total
    assert parameters(release.model).total == total


def test_the_printed_parts_of_4khd():
    counted = parameters(RELEASES["internlm-xcomposer2-4khd-7b"].model)
    assert round(counted.parts["partial LoRA"] / 1e6) == 604
    assert counted.parts["row end and separator"] == 2 * 4096
    names = key_map(RELEASES["internlm-xcomposer2-4khd-7b"].model, "original").foreign_shapes
    assert len(names) == 942  # as many as the index of the release has


def test_an_answer_end_to_end_with_other_limits_than_trained(tmp_path):
    source = tiny_xcomposer2.folder(tmp_path)
    picture = Image.new("RGB", (300, 200), (200, 30, 30))
    seen = {}
    for limit in (None, 2, 6):
        session = vedere.load(source, hd_num=limit, device="cpu")
        reply = session.chat("What is this?", [picture], max_new_tokens=3)
        assert reply.answer_tokens == 3 or reply.reason == "stop"
        plan = reply.plans[0]
        assert plan.policy == HDPolicy(tile=56, limit=limit or 25)
        seen[limit] = plan.tokens
        text = session.prompts.make(vedere_question(picture)).request
        assert [int(k) for k in text.span_types[:3]] == [0, 1, 1]  # the picture stands behind bos, before all text
    assert seen[2] < seen[6] < seen[None]
    follow = session.chat("And now?", history=[reply], max_new_tokens=2)
    assert len(follow.plans) == 1
    with pytest.raises(ConfigError, match=r"max_tiles 3 needs a tiling policy.*hd_num is its limit"):
        vedere.load(source, max_tiles=3, device="cpu")


def vedere_question(picture):
    from vedere.infer.prompts import Question

    return Question(text="What is this?", images=[picture])


def test_a_square_sibling_answers(tmp_path):
    session = vedere.load(tiny_xcomposer2.folder(tmp_path, "square"), device="cpu")
    reply = session.chat("What is this?", [Image.new("RGB", (90, 40))], max_new_tokens=2)
    assert reply.plans[0].tokens == 16
    with pytest.raises(
        ConfigError, match="hd_num 9 is the limit of XComposer2-4KHD's views; this model has a SquarePolicy"
    ):
        vedere.load(tmp_path, hd_num=9, device="cpu")


def test_a_tower_that_clip_does_not_have_is_refused():
    with pytest.raises(ConfigError, match="CLIP's patches have no bias"):
        ClipViTConfig(patches=PatchConfig(width=32, tile=56))
    with pytest.raises(ConfigError, match="3 heads do not divide"):
        ClipViTConfig(patches=PatchConfig(width=32, tile=56, bias=False), heads=3)
