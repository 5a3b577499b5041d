"""Every recorded folder passes, every recorded value of it can fail, and nothing recorded goes unmentioned.

The functions are those of `vedere verify`, so that tests and command cannot disagree.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from vedere.errors import CheckpointError
from vedere.verify.run import verify

KINDS = {
    "mono-internvl": "Mono-InternVL",
    "mono-internvl-two-images": "Mono-InternVL",
    "v2pe": "V2PE",
    "internvl-internlm2-dynntk": "InternVL",
    "internvl-hf": "native InternVL",
    "internvl-hf-6b-style": "native InternVL",
    "internvl-internlm2": "InternVL",
    "internvl-qwen2": "InternVL",
    "internvl-llama": "InternVL",
    "internvit-6b-style": "InternVL",
    "xcomposer2-4khd": "XComposer2",
    "xcomposer2-4khd-two-images": "XComposer2",
    "xcomposer-1": "XComposer",
    "v2pe-positions": "V2PE position ids",
    "preprocessing": "preprocessing",
    "chat-templates": "chat templates",
    "loss-reweighting": "loss re-weighting",
    "loss-mpo": "preference loss",
}
MODELS = ["mono-internvl", "mono-internvl-two-images", "v2pe", "internvl-internlm2-dynntk", "internvit-6b-style"]
WITH_TENSORS = [name for name in KINDS if name != "chat-templates"]


@pytest.mark.parametrize("name", KINDS)
def test_a_recorded_folder_passes(golden, name) -> None:
    report = verify(golden / name)
    failed = [f"{check.name}: {check.error} {check.note}" for check in report.checks if not check.passed]
    assert not failed
    assert report.passed
    assert report.kind == KINDS[name]


@pytest.mark.parametrize("name", WITH_TENSORS)
def test_every_recorded_tensor_is_named_once(golden, name) -> None:
    report = verify(golden / name)
    lines = [check.name for check in report.checks]
    assert len(set(lines)) == len(lines)
    assert set(load_file(golden / name / "io.safetensors")) <= {*lines, *report.inputs}
    assert not set(lines) & set(report.inputs)


@pytest.mark.parametrize("name", WITH_TENSORS)
def test_every_compared_tensor_can_fail(golden, damaged, name) -> None:
    compared = {check.name for check in verify(golden / name).checks}
    copy = damaged(name)

    def change(stored) -> None:
        # The very last element, twice the tolerance of a loss or 1 in ids: nothing may be compared in part only.
        for key in compared & stored.keys():
            flat = stored[key].flatten()
            flat[-1] += 1 if not flat.is_floating_point() else max(2e-4, 2e-4 * float(flat[-1].abs()))
            if flat.dtype == torch.bfloat16:
                flat[-1] *= 1.5

    copy.tensors(change)
    stored = load_file(copy.directory / "io.safetensors").keys()
    report = verify(copy.directory)
    assert not report.passed
    passed = {check.name for check in report.checks if check.passed} & stored
    recorded = load_file(copy.directory / "io.safetensors")
    mask = recorded.get("attention_mask")
    padded = "logits" in recorded and mask is not None and not mask.flatten()[-1]  # the last row is shorter
    assert passed == ({"logits"} if padded else set())


@pytest.mark.parametrize("name", WITH_TENSORS)
def test_nan_never_passes(damaged, name) -> None:
    copy = damaged(name)
    target = {
        "v2pe": "logits.d16",
        "v2pe-positions": "rope.cos.h16.base10000",
        "preprocessing": "wide.pixel_values",
        "loss-reweighting": "l1.square.logits_grad",
        "loss-mpo": "step2.policy_logits_grad",
    }.get(name, "logits")
    copy.tensors(lambda stored: stored[target].flatten()[0:1].fill_(torch.nan))
    report = verify(copy.directory, tolerance=1e9)
    assert [check.name for check in report.checks if not check.passed] == [target]


def test_one_wrong_value_fails_its_line_only(damaged) -> None:
    copy = damaged("mono-internvl")

    def change(stored) -> None:
        stored["hidden_states_row0"][1, 7, 3] += 2e-4

    copy.tensors(change)
    report = verify(copy.directory)
    (failed,) = [check for check in report.checks if not check.passed]
    assert failed.name == "hidden_states_row0"
    assert failed.error == pytest.approx(2e-4, rel=0.2)
    assert verify(copy.directory, tolerance=1e-3).passed
    assert not verify(copy.directory, tolerance=1e-4).passed


def test_padding_is_not_compared(damaged) -> None:
    copy = damaged("mono-internvl-two-images")

    def change(stored) -> None:
        stored["logits"][stored["attention_mask"] == 0] = torch.nan

    copy.tensors(change)
    assert verify(copy.directory).passed


def test_tolerance_does_not_soften_ids(damaged) -> None:
    copy = damaged("mono-internvl")

    def change(stored) -> None:
        stored["generated_ids"][0, 3] += 1

    copy.tensors(change)
    report = verify(copy.directory, tolerance=1e9)
    assert [(check.name, check.error) for check in report.checks if not check.passed] == [("generated_ids", 1)]


@pytest.mark.parametrize("name", ["mono-internvl", "v2pe", "internvl-internlm2-dynntk"])
def test_wrong_weights_are_seen(damaged, name) -> None:
    copy = damaged(name)

    def change(stored) -> None:
        stored["language_model.model.layers.1.attention.wqkv.weight"] *= 1.01

    copy.tensors(change, "model.safetensors")
    failed = {check.name for check in verify(copy.directory).checks if not check.passed}
    assert "projected_features" not in failed
    assert any(line.startswith("logits") for line in failed)


def test_a_visual_expert_matters_to_pictures_only(damaged) -> None:
    copy = damaged("mono-internvl")

    def change(stored) -> None:
        stored["language_model.model.layers.0.feed_forward_ve.w2.weight"] *= 1.1

    copy.tensors(change, "model.safetensors")
    verdicts = {check.name: check.passed for check in verify(copy.directory).checks}
    assert not verdicts["logits"]
    assert verdicts["text_only_logits"]


def test_an_unknown_tensor_is_a_failure(damaged) -> None:
    copy = damaged("mono-internvl")
    copy.tensors(lambda stored: stored.update(new_thing=torch.zeros(2, 3)))
    (failed,) = [check for check in verify(copy.directory).checks if not check.passed]
    assert (failed.name, failed.shape) == ("new_thing", (2, 3))
    assert "no such tensor" in failed.note


def test_inputs_that_do_not_fit_fail_their_lines_and_no_others(damaged) -> None:
    copy = damaged("mono-internvl")

    def change(stored) -> None:
        stored["prompt_ids"][0, 0] = 500  # one visual position too many

    copy.tensors(change)
    (failed,) = [check for check in verify(copy.directory).checks if not check.passed]
    assert failed.name == "generated_ids"
    assert "visual positions" in failed.note


def test_a_missing_input_is_named(damaged) -> None:
    copy = damaged("loss-reweighting")
    copy.tensors(lambda stored: stored.pop("l2.cu_seqlens"))
    failed = [check for check in verify(copy.directory).checks if not check.passed]
    assert {check.name.split(".")[0] for check in failed} == {"l2"}
    assert all("no input 'l2.cu_seqlens'" in check.note for check in failed)


def test_a_tensor_of_another_shape_is_named(damaged) -> None:
    copy = damaged("mono-internvl")
    copy.tensors(lambda stored: stored.update(text_only_logits=stored["text_only_logits"][:, :-1].contiguous()))
    (failed,) = [check for check in verify(copy.directory).checks if not check.passed]
    assert failed.note == "computed [1, 12, 512] where [1, 11, 512] is recorded"


def test_the_batch_may_stand_in_another_order(golden, damaged) -> None:
    """A shorter first row, left padding and a dropped tile: layouts that the recorded folders do not have."""
    copy = damaged("mono-internvl-two-images")

    def change(stored) -> None:
        mask = stored["attention_mask"][1].bool()
        length, shift = int(mask.sum()), int((~mask).sum())
        for key in ("input_ids", "labels", "attention_mask", "logits", "visual_token_mask"):
            value = stored[key].flip(0)
            value[0] = value[0].roll(shift, 0)
            stored[key] = value.clone()
        row = stored["logits"][0, shift:]
        assert len(row) == length
        tiles = stored["pixel_values"]  # three tiles of padding go to the front, the last row's tile follows
        order = [0, 8, *range(8)]
        flags = torch.tensor([0] + [1] * 9)[:, None]
        stored["pixel_values"] = tiles[order].contiguous()
        stored["image_flags"] = flags
        for key in ("vision_last_hidden_state", "projected_features"):
            stored[key] = stored[key][order].contiguous()
        stored["logits_row0_unpadded"] = row[None].clone()
        for key in ("hidden_states_row0", "prompt_ids", "prompt_num_tiles", "generated_ids"):
            stored.pop(key)

    copy.tensors(change)
    report = verify(copy.directory)
    assert [check.name for check in report.checks if not check.passed] == []
    assert {"logits", "loss", "logits_row0_unpadded"} <= {check.name for check in report.checks}


# --- tables ------------------------------------------------------------------------------------------------------------


def set_at(*path):
    """A change of one value of a JSON document: the last argument is the value, or a function of the old one."""
    *keys, last, value = path

    def change(data) -> None:
        for key in keys:
            data = data[key]
        data[last] = value(data[last]) if callable(value) else value

    return change


def typo(text: str) -> str:
    return text[:-1] + ("x" if text[-1] != "x" else "y")


TABLES = [
    ("preprocessing", "internvl_tiling.json", set_at(17, "results", "12", "grid", 0, 13), "max_num 12"),
    ("preprocessing", "internvl_tiling.json", set_at(3, "results", "6", "tiles_with_thumbnail", 99), "max_num 6"),
    ("preprocessing", "internvl_tiling.json", set_at(120, "width", lambda w: 7 * w), "max_num"),
    ("preprocessing", "hd_transform.json", set_at(5, "hd336", "25", "resized", 1, 1), "hd336 hd_num 25"),
    ("preprocessing", "hd_transform.json", set_at(8, "ixc25_560", "9", "grid_wh", [9, 9]), "ixc25_560 hd_num 9"),
    ("preprocessing", "hd_transform.json", set_at(2, "hd336", "55", "padded", 0, 0), "hd336 hd_num 55"),
    ("preprocessing", "images.json", set_at(0, "tiles", 10), "images.json"),
    ("preprocessing", "images.json", set_at(1, "max_num", 2), "tall.pixel_values"),
    ("preprocessing", "images.json", set_at(3, "use_thumbnail", True), "grey.pixel_values"),
    ("preprocessing", "images.json", set_at(8, "out_size", [1, 2]), "images.json"),
    ("preprocessing", "images.json", set_at(8, "hd_num", 6), "hdwide.hd.png"),
    ("preprocessing", "images.json", set_at(4, "file", "gone.png"), "gone.png"),
    ("v2pe-positions", "index.json", set_at(4, "segments", 0, 6), "index.json"),
    ("v2pe-positions", "index.json", set_at(3, "delta", "1/8"), "position_ids.n256.l0.d16"),
    ("v2pe-positions", "index.json", set_at(3, "tiles", 0, 2), "index.json"),
    ("v2pe-positions", "index.json", set_at(9, "rope_pos_id_stride", 5), "index.json"),
    ("v2pe-positions", "index.json", set_at(9, "key", "nowhere"), "nowhere"),
    ("chat-templates", "dialogues.json", set_at("num_image_token", 5), "internvl2_5.inference_prompt"),
    ("chat-templates", "dialogues.json", set_at("templates", "phi3-chat", "sep", "\n"), "phi3-chat.strings"),
    ("chat-templates", "dialogues.json", set_at("templates", "Hermes-2", "roles", 1, typo), "Hermes-2.strings"),
    (
        "chat-templates",
        "dialogues.json",
        set_at("templates", "Hermes-2", "system_message", typo),
        "Hermes-2.inference_prompt",
    ),
    (
        "chat-templates",
        "dialogues.json",
        set_at("templates", "phi3-chat", "dialogues", 2, "inference_prompt", typo),
        "phi3-chat.inference_prompt",
    ),
    (
        "chat-templates",
        "dialogues.json",
        set_at("templates", "internlm2-chat", "dialogues", 3, "training", "spans", 1, "trained", False),
        "internlm2-chat.training.spans",
    ),
    (
        "chat-templates",
        "dialogues.json",
        set_at("templates", "internvl2_5", "dialogues", 4, "training", "spans", 0, "text", typo),
        "internvl2_5.training.spans",
    ),
    ("chat-templates", "dialogues.json", set_at("templates", {"new-chat": {}}), "templates.new-chat"),
    (
        "chat-templates",
        "dialogues.json",
        set_at("ixc2", "dialogues", 1, "without_meta", "pieces", 1, "hd_num", 24),
        "ixc2.without_meta.pieces",
    ),
    (
        "chat-templates",
        "dialogues.json",
        set_at("ixc2", "dialogues", 5, "with_meta", "rendered", typo),
        "ixc2.with_meta.rendered",
    ),
    (
        "chat-templates",
        "dialogues.json",
        set_at("ixc1", "wrap_prompt", 2, "prefix", "bos", False),
        "ixc1.wrap_prompt.prefix",
    ),
    (
        "chat-templates",
        "dialogues.json",
        set_at("ixc1", "wrap_prompt", 0, "suffix", "text", typo),
        "ixc1.wrap_prompt.suffix",
    ),
    ("chat-templates", "dialogues.json", set_at("ixc1", "wrap_text", typo), "ixc1.wrap_text"),
    ("chat-templates", "dialogues.json", set_at("ixc3", {}), "ixc3"),
]


@pytest.mark.parametrize("case", range(len(TABLES)))
def test_a_wrong_table_fails_and_says_where(damaged, case) -> None:
    name, file, change, line = TABLES[case]
    copy = damaged(name)
    copy.table(file, lambda data: ensure(data, change))
    failed = [check for check in verify(copy.directory).checks if not check.passed]
    assert any(line in check.name for check in failed), [check.name for check in failed]
    tables = [check for check in failed if check.shape == () or ("." in check.name and not is_tensor(copy, check.name))]
    assert all(check.note or check.name.endswith(".png") for check in tables)


def is_tensor(copy, name) -> bool:
    path = copy.directory / "io.safetensors"
    return path.is_file() and name in load_file(path)


def ensure(data, change) -> None:
    """Applies a change that must change something."""
    before = repr(data)
    change(data)
    assert repr(data) != before


def test_ids_of_another_layout_fail(damaged) -> None:
    copy = damaged("v2pe-positions")

    def change(stored) -> None:
        ids = stored["input_ids.n4.l2"]
        ids[(ids == 501).nonzero()[0]] = 7  # an image without its start marker

    copy.tensors(change)
    (failed,) = [check for check in verify(copy.directory).checks if not check.passed]
    assert (failed.name, failed.error) == ("input_ids.n4.l2 (layout)", 1)


def test_a_picture_that_changed_by_one_level_fails(damaged) -> None:
    from PIL import Image

    copy = damaged("preprocessing")
    path = copy.directory / "hdtall.hd.png"
    image = Image.open(path).convert("RGB")
    red, green, blue = image.getpixel((30, 40))
    image.putpixel((30, 40), (red ^ 1, green, blue))
    image.save(path)
    failed = [(check.name, check.error) for check in verify(copy.directory).checks if not check.passed]
    assert failed == [("hdtall.hd.png", 1)]


def test_another_system_message_is_rendered_as_recorded(damaged) -> None:
    copy = damaged("chat-templates")

    def change(data) -> None:
        template = data["templates"]["Hermes-2"]
        old, new = template["system_message"], "You are terse."
        template["system_message"] = new
        for dialogue in template["dialogues"]:
            dialogue["inference_prompt"] = dialogue["inference_prompt"].replace(old, new)
            for span in (dialogue["training"] or {"spans": []})["spans"]:
                span["text"] = span["text"].replace(old, new)

    copy.table("dialogues.json", change)
    assert verify(copy.directory).passed


def test_the_recorded_system_messages_are_the_templates_own(golden) -> None:
    import json

    from vedere.text.chat import get_template

    recorded = json.loads((golden / "chat-templates" / "dialogues.json").read_text(encoding="utf-8"))
    for name, table in recorded["templates"].items():
        assert get_template(name).system == table["system_message"]


@pytest.mark.parametrize("name", MODELS)
def test_a_folder_may_have_shards(damaged, name) -> None:
    """Weights of several files are found like weights of one."""
    from vedere.models.shards import write_tensors

    copy = damaged(name)
    weights = load_file(copy.directory / "model.safetensors")
    (copy.directory / "model.safetensors").unlink()
    write_tensors(copy.directory, weights, max_shard_bytes=100_000)
    assert len(list(copy.directory.glob("model-*.safetensors"))) > 1
    shutil.copy(copy.directory / "config.json", copy.directory / "unrelated.json")
    assert verify(copy.directory).passed


@pytest.mark.parametrize(
    "change",
    [
        {"beta": 0.2},
        {"sigmoid_loss_weight": 0.5},
        {"rpo_alpha": 0.0},
        {"loss_type": "sigmoid"},
        {"label_smoothing": 0.1},
    ],
)
def test_a_preference_loss_of_other_settings_is_seen(golden, tmp_path, change) -> None:
    shutil.copyfile(golden / "loss-mpo" / "io.safetensors", tmp_path / "io.safetensors")
    config = json.loads((golden / "loss-mpo" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | change), encoding="utf-8")
    failed = {check.name for check in verify(tmp_path).checks if not check.passed}
    assert {"step0.total_loss", "step3.policy_logits_grad", "config.json"} <= failed
    assert not any("policy_chosen_logps" in name for name in failed)


def test_a_preference_loss_that_is_not_computed_here_is_refused(golden, tmp_path) -> None:
    shutil.copyfile(golden / "loss-mpo" / "io.safetensors", tmp_path / "io.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"loss_type": "sigmoid,kto"}), encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"'loss_type' is 'sigmoid,kto'; expected one or both of sigmoid, bco_pair"
    ):
        verify(tmp_path)
