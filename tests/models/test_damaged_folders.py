"""Native folders in shards, damaged one tensor or field at a time: the message names it, and nothing else is ever raised."""

import contextlib
import functools
import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import tiny_internvl
from vedere.errors import CheckpointError, VedereError
from vedere.models import hf_names, shards
from vedere.models.checkpoints import load_model, save_model
from vedere.models.published import parse_config

SHAPE = tiny_internvl.config()
NAMES = sorted(hf_names.key_map(SHAPE).foreign_shapes)


@functools.cache
def whole() -> tuple[Path, dict[str, str], tempfile.TemporaryDirectory]:
    """An intact folder, the file of each of its tensors, and what removes it in the end."""
    place = tempfile.TemporaryDirectory()
    folder = Path(place.name)
    save_model(tiny_internvl.model(SHAPE), folder, "hf", max_shard_bytes=30_000, image_token=7)
    return folder, json.loads((folder / shards.INDEX).read_text())["weight_map"], place


def damaged(change) -> str:
    """The message after ``change(folder)`` on a copy."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "copy"
        shutil.copytree(whole()[0], folder)
        change(folder)
        with pytest.raises(CheckpointError) as caught:
            load_model(folder)
        return str(caught.value)


def rewrite(folder, name, change) -> None:
    """Applies ``change`` to the tensors of the shard that holds ``name``; the index is kept in step."""
    path = folder / whole()[1][name]
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    change(tensors)
    save_file(tensors, path)
    index = {key: file for key, file in whole()[1].items() if file != whole()[1][name]}
    (folder / shards.INDEX).write_text(json.dumps({"weight_map": index | dict.fromkeys(tensors, whole()[1][name])}))


def test_the_whole_folder_loads():
    assert len(set(whole()[1].values())) > 3
    assert load_model(whole()[0]).config == SHAPE


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_one_wrong_tensor_is_named_with_both_shapes(name, data):
    kind = data.draw(st.sampled_from(["lost", "renamed", "shape", "turned", "integer"]))
    tensor = load_file(whole()[0] / whole()[1][name])[name]
    right = list(tensor.shape)
    wrong = [*right[:-1], right[-1] + data.draw(st.integers(1, 5))] if kind != "turned" else [*right, 1]

    def change(tensors) -> None:
        if kind in ("lost", "renamed"):
            del tensors[name]
        if kind == "renamed":
            tensors[name + "x"] = tensor.clone()
        if kind in ("shape", "turned"):
            tensors[name] = torch.zeros(wrong)
        if kind == "integer":
            tensors[name] = torch.zeros(right, dtype=torch.int8)

    message = damaged(lambda folder: rewrite(folder, name, change))
    if name.endswith("lm_head.weight") and kind in ("lost", "renamed"):
        assert "lm_head" in message
        return
    assert name in message
    if kind in ("shape", "turned"):
        assert f"{wrong}" in message
        assert f"{right}" in message
    if kind == "renamed":
        assert "did you mean" in message
    if kind == "integer":
        assert "int8" in message


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(NAMES), st.floats(0, 0.999))
def test_a_shard_that_is_cut_off_is_named_with_both_sizes(name, part):
    file = whole()[1][name]
    size = (whole()[0] / file).stat().st_size

    def cut(folder) -> None:
        with open(folder / file, "r+b") as handle:
            handle.truncate(int(size * part))

    message = damaged(cut)
    assert file in message
    assert re.search(rf"cut off: .*{int(size * part):,}|cut off: .*starts with 8 bytes", message), message


def test_missing_shards_and_wrong_indices():
    file = whole()[1][NAMES[0]]
    assert f"are missing: {file}; finish the download" in damaged(lambda folder: (folder / file).unlink())

    def other(folder) -> None:
        (folder / shards.INDEX).write_text(
            json.dumps({"weight_map": whole()[1] | {NAMES[0]: "model-99999.safetensors"}})
        )

    assert "are missing: model-99999.safetensors" in damaged(other)

    def swapped(folder) -> None:
        elsewhere = next(place for place in whole()[1].values() if place != file)
        (folder / shards.INDEX).write_text(json.dumps({"weight_map": whole()[1] | {NAMES[0]: elsewhere}}))

    assert f"places '{NAMES[0]}' in " in damaged(swapped)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 10**7),
    st.floats(allow_nan=True),
    st.text(max_size=3),
    st.just([]),
    st.just({}),
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_value_in_any_field_gives_a_config_or_a_message(data):
    config = json.loads((whole()[0] / "config.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        section = (
            config[data.draw(st.sampled_from(["text_config", "vision_config"]))] if data.draw(st.booleans()) else config
        )
        if not isinstance(section, dict) or not section:
            continue
        section[data.draw(st.sampled_from(sorted(section)))] = data.draw(VALUES)
    if config.get("model_type") != "internvl":
        return
    with contextlib.suppress(VedereError):
        parse_config(config)
