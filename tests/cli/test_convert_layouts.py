"""`vedere convert` between the layouts: not a bit of a weight, not a field of a config and no file of a tokenizer is lost."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import tiny_internvl
from vedere.cli import main
from vedere.models import shards
from vedere.models.checkpoints import load_model, read_config, save_model
from vedere.text.tokenizer import Tokenizer


def convert(source, out, layout, *more):
    assert main(["convert", str(source), str(out), "--layout", layout, *more]) == 0
    return out


def refused(capsys, *arguments):
    capsys.readouterr()
    assert main(["convert", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def same_weights(one, other):
    one, other = shards.read_tensors(one), shards.read_tensors(other)
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_original_to_native_and_back_is_bit_exact(tmp_path, dtype):
    source = tiny_internvl.folder(tmp_path / "a", "original", dtype, qkv_bias=False)
    native = convert(source, tmp_path / "b", "hf")
    back = convert(native, tmp_path / "c", "original")
    assert same_weights(source, back)
    assert {tensor.dtype for tensor in shards.read_tensors(native).values()} == {dtype}
    assert json.loads((source / "config.json").read_text()) == json.loads((back / "config.json").read_text())
    assert (source / "tokenizer.json").read_bytes() == (back / "tokenizer.json").read_bytes()
    one, other = load_model(source).state_dict(), load_model(native).state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", ["internvl-hf", "internvl-hf-6b-style"])
def test_native_to_own_and_back_keeps_every_field(golden, tmp_path, case):
    own = convert(golden / case, tmp_path / "own", "vedere")
    back = convert(own, tmp_path / "back", "hf")
    assert same_weights(golden / case, back)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (golden / case, back))
    for section in ("text_config", "vision_config"):
        assert before[section].items() <= after[section].items()
    assert {k: v for k, v in before.items() if not k.endswith("_config")}.items() <= after.items()
    assert "converted_from" not in after


@pytest.mark.parametrize(
    ("native", "original"), [("internvl-hf", "internvl-qwen2"), ("internvl-hf-6b-style", "internvit-6b-style")]
)
def test_the_recorded_folders_are_conversions_of_each_other(golden, tmp_path, native, original):
    assert same_weights(convert(golden / native, tmp_path / "a", "original"), golden / original)
    save_model(
        load_model(golden / original),
        tmp_path / "b",
        "hf",
        extras=read_config(golden / original).extras,
        image_token=500,
    )
    assert same_weights(tmp_path / "b", golden / native)
    assert read_config(tmp_path / "b").model == read_config(golden / native).model
    back = convert(tmp_path / "b", tmp_path / "c", "original")
    assert json.loads((back / "config.json").read_text()) == json.loads((golden / original / "config.json").read_text())


def test_the_processor_is_told_what_the_original_folder_said(tmp_path):
    source = tiny_internvl.folder(tmp_path / "a", "original", qkv_bias=False)
    out = convert(source, tmp_path / "b", "hf")
    read = {path.name: json.loads(path.read_text()) for path in out.glob("*.json")}
    assert read["preprocessor_config.json"]["max_patches"] == 6
    assert read["preprocessor_config.json"]["size"] == {"height": 28, "width": 28}
    assert read["video_preprocessor_config.json"]["image_mean"] == [0.485, 0.456, 0.406]
    assert read["processor_config.json"]["image_seq_length"] == 4
    assert read["config.json"]["image_token_id"] == Tokenizer.load(out).token_id("<IMG_CONTEXT>")
    words = read["tokenizer_config.json"]
    assert words["tokenizer_class"] == "PreTrainedTokenizerFast", "no class that comes as code"
    assert "auto_map" not in words
    assert read_config(out).extras["system_message"] == "Be kind."
    back = convert(out, tmp_path / "c", "original")
    assert json.loads((back / "preprocessor_config.json").read_text())["crop_size"] == 28
    assert not (back / "chat_template.jinja").exists()


@pytest.mark.parametrize("case", ["internvl-qwen2", "internvl-internlm2", "internvl-llama", "internvit-6b-style"])
def test_weights_without_a_tokenizer_go_to_native_and_back(golden, tmp_path, capsys, case):
    native = convert(golden / case, tmp_path / "native", "hf")
    assert "does not say which token stands for a picture" in capsys.readouterr().err
    assert "image_token_id" not in json.loads((native / "config.json").read_text())
    back = convert(native, tmp_path / "back", "original")
    assert same_weights(golden / case, back)
    assert json.loads((back / "config.json").read_text()) == json.loads((golden / case / "config.json").read_text())
    told = convert(golden / case, tmp_path / "told", "hf", "--image-token", "500")
    assert json.loads((told / "config.json").read_text())["image_token_id"] == 500
    assert "which token" not in capsys.readouterr().err


def test_a_native_folder_without_a_tokenizer_keeps_its_tiling(golden, tmp_path):
    source = tmp_path / "a"
    shutil.copytree(golden / "internvl-hf", source)
    (source / "preprocessor_config.json").write_text('{"max_patches": 6}')
    out = convert(source, tmp_path / "b", "hf")
    assert read_config(out).extras["max_dynamic_patch"] == 6
    assert read_config(convert(out, tmp_path / "c", "original")).extras["max_dynamic_patch"] == 6


FILES = {
    "tokenizer_config.json": '{"tokenizer_class": "SomeTokenizer",  "auto_map": {"a": "b.py"}, "chat_template": "{{ 1 }}"}',
    "preprocessor_config.json": '{"crop_size": 28, "do_center_crop": true, "size": 28}',
    "special_tokens_map.json": '{"eos_token": "<|im_end|>"}',
    "added_tokens.json": "{}\n",
    "chat_template.jinja": "{{ 2 }}",
}


@pytest.mark.parametrize(
    "way", [("hf",), ("vedere",), ("hf", "hf"), ("vedere", "hf"), ("hf", "vedere"), ("original", "hf", "hf")]
)
def test_files_of_tokenizer_and_preprocessor_come_back_byte_for_byte(tmp_path, way):
    source = tiny_internvl.folder(tmp_path / "a", "original", qkv_bias=False)
    for name, text in FILES.items():
        (source / name).write_text(text)
    place = source
    for number, layout in enumerate([*way, "original"]):
        place = convert(place, tmp_path / str(number), layout)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }


def test_a_file_that_was_edited_meanwhile_is_kept(tmp_path):
    source = tiny_internvl.folder(tmp_path / "a", "original", qkv_bias=False)
    native = convert(source, tmp_path / "b", "hf")
    words = json.loads((native / "tokenizer_config.json").read_text()) | {"pad_token": "<|endoftext|>"}
    (native / "tokenizer_config.json").write_text(json.dumps(words))
    back = convert(native, tmp_path / "c", "original")
    assert json.loads((back / "tokenizer_config.json").read_text()) == words
    assert not (back / "generation_config.json").exists()


def test_pickled_shards_become_safetensors(tmp_path):
    source = tiny_internvl.folder(tmp_path / "a", "original", qkv_bias=False)
    tensors = load_file(source / "model.safetensors")
    (source / "model.safetensors").unlink()
    halves = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    for number, half in enumerate(halves):
        torch.save(half, source / f"pytorch_model-{number}.bin")
    places = {name: f"pytorch_model-{number}.bin" for number, half in enumerate(halves) for name in half}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    out = convert(source, tmp_path / "b", "original")
    assert (out / "model.safetensors").is_file()
    assert same_weights(source, out)
    assert not list(out.glob("*.bin"))


def test_a_dtype_rounds_only_when_asked(tmp_path):
    source = tiny_internvl.folder(tmp_path / "a", qkv_bias=False)
    out = convert(source, tmp_path / "b", "hf", "--dtype", "bf16")
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    rounded = load_model(out).state_dict()
    assert all(torch.equal(rounded[n], t.bfloat16()) for n, t in load_model(source).state_dict().items())


def test_what_the_native_layout_does_not_have_is_refused(golden, tmp_path, capsys):
    out = tmp_path / "out"
    assert "is for InternVL with a tower; this is a MonoInternVLConfig" in refused(
        capsys, golden / "mono-internvl", out, "--layout", "hf"
    )
    assert "no class for visual experts or V2PE" in refused(
        capsys, golden / "v2pe", out, "--layout", "hf", "--dtype", "fp32"
    )
    assert "one order of the unshuffle (v2, given: v1)" in refused(
        capsys, golden / "internvl-internlm2-dynntk", out, "--layout", "hf"
    )
    assert not out.exists()
    source = tiny_internvl.folder(tmp_path / "a", qkv_bias=False)
    assert "has the id 700, beyond the vocabulary of 329" in refused(
        capsys, source, out, "--layout", "hf", "--image-token", "700"
    )
    assert "--image-token belongs to --layout hf" in refused(capsys, source, out, "--image-token", "7")
    assert "are the same folder" in refused(capsys, source, source, "--layout", "original")
    source = tiny_internvl.folder(tmp_path / "b", "original", qkv_bias=False)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"use_thumbnail": False}))
    assert "has no tiling like TilingPolicy" in refused(capsys, source, out, "--layout", "hf")
    assert not out.exists()
