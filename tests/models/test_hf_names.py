"""Native names of InternVL: both generations, and the same weights as the original folders."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from vedere.errors import CheckpointError
from vedere.models import hf_names
from vedere.models.checkpoints import load_model, read_config

CASES = {"internvl-hf": "internvl-qwen2", "internvl-hf-6b-style": "internvit-6b-style"}


def new_names(golden, case):
    """Tensors of a folder under the names that transformers has in memory."""
    names = json.loads((golden / case / "key_names.json").read_text())
    stored = load_file(golden / case / "model.safetensors")
    short = hf_names.key_map(read_config(golden / case).model, "old")
    long = hf_names.key_map(read_config(golden / case).model, "new")
    renamed = long.to_foreign(short.to_own(stored))
    assert sorted(renamed) == sorted(names["in_memory"])
    return renamed


@pytest.mark.parametrize("case", CASES)
def test_names_are_those_that_transformers_writes_and_keeps(golden, case):
    names = json.loads((golden / case / "key_names.json").read_text())
    config = read_config(golden / case).model
    assert sorted(hf_names.key_map(config, "old").foreign_shapes) == sorted(names["in_file"])
    assert sorted(hf_names.key_map(config, "new").foreign_shapes) == sorted(names["in_memory"])


@pytest.mark.parametrize("case", CASES)
def test_both_generations_load_the_same_model(golden, tmp_path, case):
    (tmp_path / "config.json").write_text((golden / case / "config.json").read_text())
    save_file(new_names(golden, case), tmp_path / "model.safetensors")
    one, other = load_model(golden / case).state_dict(), load_model(tmp_path).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", CASES)
def test_the_weights_are_those_of_the_original_folder(golden, case):
    """Layer by layer: the fused tensor of the original is the three native ones on top of each other."""
    native = load_file(golden / case / "model.safetensors")
    original = load_file(golden / CASES[case] / "model.safetensors")
    own = dict(hf_names.key_map(read_config(golden / case).model).iter_own(native))
    qkv = [name for name in original if ".attn.qkv." in name]
    assert qkv
    for name in qkv:
        layer, leaf = name.split(".")[3], name.rpartition(".")[2]
        assert torch.equal(own[f"vision.layers.{layer}.attention.qkv.{leaf}"], original[name])
    assert torch.equal(own["decoder.head.weight"], original["language_model.lm_head.weight"])
    assert torch.equal(own["projector.fc2.bias"], original["mlp1.3.bias"])
    assert sum(tensor.numel() for tensor in own.values()) == sum(tensor.numel() for tensor in original.values())


def test_a_mixture_of_generations_is_refused_with_a_name_of_each(golden, tmp_path):
    case = "internvl-hf"
    (tmp_path / "config.json").write_text((golden / case / "config.json").read_text())
    mixed = load_file(golden / case / "model.safetensors") | {
        name: tensor for name, tensor in new_names(golden, case).items() if name.startswith("model.vision_tower")
    }
    save_file(mixed, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"mixes both generations.*'language_model\..*'model\.vision_tower\."):
        load_model(tmp_path)
