"""Quantised deltas: errors bounded, bytes repeatable, the language model's identity enforced."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from vedere.errors import CheckpointError
from vedere.models import delta as deltas
from vedere.models.checkpoints import load_model, read_own, save_delta_of, save_model
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.delta import DELTA, load_delta, save_delta, tensors_sha256
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig

NAME = "decoder.layers.0.ffn.visual.gate_up.weight"
TWIN = "decoder.layers.0.ffn.text.gate_up.weight"


def pair(rows=6, columns=160, size=1e-3, dtype=torch.bfloat16):
    base = {TWIN: torch.randn(rows, columns).mul(0.05).to(torch.bfloat16)}
    return base, {NAME: (base[TWIN].float() + size * torch.randn(rows, columns)).to(dtype)}


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 150),
    bits=st.sampled_from([4, 8]),
    group=st.sampled_from([2, 16, 64]),
    size=st.sampled_from([0.0, 1e-6, 1e-3, 1.0, 1e4]),
)
def test_no_value_is_off_by_more_than_half_a_step(rows, columns, bits, group, size):
    difference = size * torch.randn(rows, columns)
    codes, scales = deltas._quantise(difference, bits, group)
    back = deltas._dequantise(codes, scales, bits, group, columns)
    groups = -(-columns // group)
    assert codes.shape == (rows, groups * group * bits // 8)
    assert codes.dtype == torch.uint8
    step = scales.float().repeat_interleave(group, dim=1)[:, :columns]
    assert bool(((back - difference).abs() <= step * 0.5001).all())
    largest = torch.nn.functional.pad(difference, (0, groups * group - columns)).reshape(rows, groups, group)
    largest = largest.abs().amax(-1) / (2 ** (bits - 1) - 1)
    assert bool((scales.float() >= largest).all()), "the largest value must not be clipped"
    assert bool((scales.float() <= largest * 1.01).all())


@pytest.mark.parametrize(("bits", "most"), [(4, 0.13), (8, 0.008)])
def test_relative_error_of_a_gaussian_difference(tmp_path, bits, most):
    base, tuned = pair(64, 512, dtype=torch.float32)
    report = save_delta(tmp_path, base, tuned, bits=bits)
    assert most / 2 < report.relative_error[NAME] < most
    assert report.worst == report.relative_error[NAME]
    loaded = load_delta(tmp_path, base)[NAME]
    assert loaded.dtype == torch.bfloat16
    # Rounding the sum to bfloat16 (8 bits, of weights of about 0.05) adds its own error.
    rounding = (loaded.float() - tuned[NAME]).norm()
    assert rounding <= report.worst * (tuned[NAME] - base[TWIN].float()).norm() + 2**-9 * tuned[NAME].norm()
    assert report.bytes < 64 * 512 * (bits + 16 / 64) / 8 + 1000


def test_an_untrained_expert_comes_back_as_its_text_twin_exactly(tmp_path):
    base, _ = pair()
    save_delta(tmp_path, base, {NAME: base[TWIN].clone()})
    assert torch.equal(load_delta(tmp_path, base)[NAME], base[TWIN])


def test_small_tensors_are_kept_in_bfloat16_and_the_frozen_ones_left_out(tmp_path):
    base, tuned = pair()
    tuned |= base | {"projector.fc1.weight": torch.randn(4, 4), "vision.cls": torch.randn(5)}
    save_delta(tmp_path, base, tuned)
    loaded = load_delta(tmp_path, base)
    assert loaded.keys() == {NAME, "projector.fc1.weight", "vision.cls"}
    assert torch.equal(loaded["vision.cls"], tuned["vision.cls"].to(torch.bfloat16))


def test_the_same_training_gives_the_same_bytes(tmp_path):
    base, tuned = pair()
    tuned["vision.cls"] = torch.randn(5)
    save_delta(tmp_path / "a", base, tuned)
    save_delta(tmp_path / "b", base, dict(reversed(tuned.items())))
    assert (tmp_path / "a" / DELTA).read_bytes() == (tmp_path / "b" / DELTA).read_bytes()


def test_another_language_model_is_refused(tmp_path):
    base, tuned = pair()
    save_delta(tmp_path, base, tuned, origin="smollm2 q4_1")
    other = {TWIN: base[TWIN].clone()}
    other[TWIN][0, 0] += 1
    with pytest.raises(CheckpointError, match=r"was made for smollm2 q4_1 \(.{12}\); the one given has checksum"):
        load_delta(tmp_path, other)
    with pytest.raises(CheckpointError, match="checksum 000000000000"):
        load_delta(tmp_path, base, "0" * 64)
    assert NAME in load_delta(tmp_path, base, tensors_sha256(base))


def test_a_language_model_that_was_not_frozen_is_refused(tmp_path):
    base, tuned = pair()
    tuned[TWIN] = base[TWIN] + 1
    with pytest.raises(CheckpointError, match=r"1 tensors of the language model were changed .* Freeze it"):
        save_delta(tmp_path, base, tuned)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(tmp_path, value):
    base, tuned = pair()
    tuned[NAME][0, 3] = value
    with pytest.raises(CheckpointError, match=f"'{NAME}' holds values that are not finite"):
        save_delta(tmp_path, base, tuned)
    assert not (tmp_path / DELTA).exists()


def test_bad_settings_and_foreign_files_are_refused(tmp_path):
    base, tuned = pair()
    for bits, group in ((3, 64), (4, 63), (4, 0)):
        with pytest.raises(CheckpointError, match=f"bits {bits}, group {group}: expected 4 or 8"):
            save_delta(tmp_path, base, tuned, bits=bits, group=group)
    save_file({"a": torch.zeros(1)}, tmp_path / DELTA)
    with pytest.raises(CheckpointError, match="no header of a vedere delta"):
        load_delta(tmp_path, base)
    save_delta(tmp_path, base, tuned)
    whole = (tmp_path / DELTA).read_bytes()
    (tmp_path / DELTA).write_bytes(whole[:-7])
    with pytest.raises(CheckpointError, match=f"is cut off: its header promises {len(whole):,} bytes"):
        load_delta(tmp_path, base)
    header = {
        "format": "vedere-delta",
        "version": 1,
        "bits": 4,
        "group": 64,
        "columns": {NAME: 160},
        "language_model_sha256": tensors_sha256(base),
        "language_model": "",
    }
    save_file({"a": torch.zeros(1)}, tmp_path / DELTA, metadata={"vedere": json.dumps(header)})
    with pytest.raises(CheckpointError, match="is damaged"):
        load_delta(tmp_path, base)
    save_file({"a": torch.zeros(1)}, tmp_path / DELTA, metadata={"vedere": json.dumps(header | {"version": 2})})
    with pytest.raises(CheckpointError, match="version 2; this vedere reads 1"):
        load_delta(tmp_path, base)


def test_identity_sees_names_dtypes_shapes_and_bits():
    one = {"a": torch.zeros(4), "b": torch.ones(2)}
    same = {"b": torch.ones(2), "a": torch.zeros(8)[::2]}
    assert tensors_sha256(one) == tensors_sha256(same)
    negative_zero = {"a": torch.tensor([0.0, 0.0, 0.0, -0.0]), "b": torch.ones(2)}
    others = [
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(8, dtype=torch.bfloat16), "b": torch.ones(2)},
        negative_zero,
        {"a": torch.zeros(4)},
    ]
    assert len({tensors_sha256(tensors) for tensors in [one, *others]}) == 6


def test_a_model_is_loaded_from_its_language_model_and_its_delta(tmp_path):
    shape = {"hidden_size": 16, "ffn_size": 24, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 4, "vocab_size": 11}
    language = Decoder(DecoderConfig(**shape, tied_head=True)).to(torch.bfloat16)
    save_model(language, tmp_path / "language")
    base = dict(read_own(tmp_path / "language")[1])
    config = MonoInternVLConfig(
        vision=PatchConfig(width=8, patch=4, tile=16),
        decoder=DecoderConfig(**shape, tied_head=True, visual_ffn=True, visual_attention=True),
    )
    model = MonoInternVL(config)
    model.load_state_dict(base, strict=False)
    model.copy_experts()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name not in base:
                parameter.add_(0.01 * torch.randn_like(parameter))
    report = save_delta_of(model, tmp_path / "delta", base, bits=8, extras={"template": "chatml"})
    assert set(report.relative_error) == {name for name, t in model.state_dict().items() if ".visual." in name}
    with pytest.raises(CheckpointError, match="give the folder of that model as well"):
        load_model(tmp_path / "delta")
    loaded = load_model(tmp_path / "delta", language_model=tmp_path / "language")
    assert loaded.config == config
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if name in base:
            assert torch.equal(state[name], base[name]), "the language model must come back bit for bit"
        else:
            torch.testing.assert_close(state[name].float(), tensor, atol=2e-3, rtol=1e-2)
    ids = torch.arange(6)
    text_only = (ids, torch.arange(6), [0, 6])
    with torch.inference_mode():
        assert torch.equal(loaded(*text_only), language.eval()(language.embed(ids), *text_only[1:]))
