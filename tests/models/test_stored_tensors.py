"""Stored tensors that cannot be taken as they are are refused by name, and a load to the meta device reads none."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere.errors import CheckpointError, ConfigError
from vedere.models import shards
from vedere.models.checkpoints import load_model, save_model


@pytest.mark.parametrize(
    "name",
    [  # those that are joined into one tensor: torch would silently take the widest dtype for all of it
        "language_model.model.layers.1.mlp.gate_proj.weight",
        "language_model.model.layers.0.self_attn.k_proj.bias",
        "language_model.model.norm.weight",
    ],
)
def test_a_single_tensor_of_another_dtype_is_named(golden, tmp_path, name):
    tensors = load_file(golden / "internvl-qwen2" / "model.safetensors")
    shutil.copy(golden / "internvl-qwen2" / "config.json", tmp_path)
    save_file(tensors | {name: tensors[name].half()}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"'{re.escape(name)}' is float16, as 1 of {len(tensors)} tensors are"):
        load_model(tmp_path)
    assert load_model(tmp_path, torch.float32).dtype == torch.float32


def test_a_file_that_is_cut_off_names_the_first_tensor_that_is_not_whole(golden, tmp_path):
    shutil.copytree(golden / "internvl-qwen2", tmp_path, dirs_exist_ok=True)
    path = tmp_path / "model.safetensors"
    whole = path.read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    header.pop("__metadata__", None)
    last = max(header, key=lambda name: header[name]["data_offsets"][0])
    path.write_bytes(whole[:-1])
    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path)
    assert f"'{last}' {header[last]['shape']}" in str(caught.value)
    assert f"1 of {len(header)} are not" in str(caught.value)


def test_a_header_whose_shape_does_not_fit_names_the_tensor(golden, tmp_path):
    shutil.copytree(golden / "internvl-qwen2", tmp_path, dirs_exist_ok=True)
    path, name = tmp_path / "model.safetensors", "mlp1.3.weight"
    whole = path.read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    header[name]["shape"] = [65, 64]
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + whole[end:])
    with pytest.raises(CheckpointError, match=rf"'{name}' \[65, 64\] of F32 takes 16,640 bytes, its place has 16,384"):
        load_model(tmp_path)


def test_a_missing_shard_names_a_tensor_that_it_holds(golden, tmp_path):
    save_model(load_model(golden / "internvl-qwen2"), tmp_path, "original", max_shard_bytes=300_000)
    index = json.loads((tmp_path / shards.INDEX).read_text())["weight_map"]
    lost = max(index.values())
    (tmp_path / lost).unlink()
    names = [name for name, file in index.items() if file == lost]
    with pytest.raises(
        CheckpointError, match=rf"{lost}; finish.*\({len(names)} tensors are in them, such as '{names[0]}'\)"
    ):
        load_model(tmp_path)


def test_float8_is_refused_by_the_name_of_a_tensor(golden, tmp_path):
    shutil.copy(golden / "internvl-qwen2" / "config.json", tmp_path)
    tensors = load_file(golden / "internvl-qwen2" / "model.safetensors")
    save_file(
        {name: tensor.to(torch.float8_e4m3fn) for name, tensor in tensors.items()}, tmp_path / "model.safetensors"
    )
    with pytest.raises(CheckpointError, match=rf"is float8_e4m3fn \({len(tensors)} such tensors\).*bfloat16 release"):
        load_model(tmp_path)


def test_a_load_to_the_meta_device_reads_nothing(golden, monkeypatch):
    monkeypatch.setattr(torch, "cat", _refuse_real(torch.cat))
    model = load_model(golden / "internvl-qwen2", device="meta")
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def _refuse_real(cat):
    def checked(parts, *args, **kwargs):
        assert all(part.is_meta for part in parts)
        return cat(parts, *args, **kwargs)

    return checked


@pytest.mark.parametrize("name", ["bogus", "cuda:99", "hpu", "xla"])
def test_a_device_that_is_not_there_is_an_error_before_anything_is_read(tmp_path, name):
    with pytest.raises(ConfigError, match=name.partition(":")[0]):
        load_model(tmp_path, device=name)
