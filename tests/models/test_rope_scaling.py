"""Stretched rotary frequencies: limits of each kind, isolation of packed documents, and how far an answer may go."""

import dataclasses

import pytest
import torch

from vedere.errors import ConfigError
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.positions import inverse_frequencies
from vedere.models.rope_scaling import RotaryState, frequencies, table_scale

BASE = DecoderConfig(
    hidden_size=32,
    ffn_size=24,
    layers=2,
    heads=4,
    kv_heads=1,
    head_dim=8,
    vocab_size=40,
    rope_theta=1000.0,
    max_positions=64,
)
LONG = dataclasses.replace(
    BASE,
    rope_scaling="longrope",
    rope_original_positions=16,
    rope_short=(1.0, 1.0, 1.0, 1.0),
    rope_long=(1.0, 2.0, 4.0, 8.0),
)
LLAMA3 = dataclasses.replace(BASE, rope_scaling="llama3", rope_factor=8.0, rope_original_positions=32)
YARN = dataclasses.replace(
    BASE,
    rope_scaling="yarn",
    rope_factor=4.0,
    rope_original_positions=64,
    rope_high_frequency=4.0,
    rope_low_frequency=0.5,
)
PLAIN = inverse_frequencies(8, 1000.0)


def test_longrope_divides_each_frequency_and_scales_the_table():
    assert torch.equal(frequencies(LONG, 16), PLAIN)
    torch.testing.assert_close(frequencies(LONG, 17), PLAIN / torch.tensor([1.0, 2.0, 4.0, 8.0]))
    assert table_scale(LONG) == pytest.approx((1 + 2 / 4) ** 0.5)  # 64 / 16 = 4 = 16^(2/4)
    assert table_scale(dataclasses.replace(LONG, rope_attention=1.25)) == 1.25
    assert table_scale(BASE) == table_scale(LLAMA3) == 1


def test_llama3_keeps_high_frequencies_and_divides_low_ones():
    scaled = frequencies(LLAMA3, 1)
    turns = 32 * PLAIN / (2 * torch.pi)
    assert torch.equal(scaled[turns > 4], PLAIN[turns > 4])
    torch.testing.assert_close(scaled[turns < 1], PLAIN[turns < 1] / 8)
    assert bool((turns > 4).any())
    assert bool((turns < 1).any())
    torch.testing.assert_close(frequencies(dataclasses.replace(BASE, rope_scaling="linear"), 1), PLAIN / 2)


def test_yarn_keeps_the_first_frequencies_divides_the_last_and_scales_the_table():
    scaled = frequencies(YARN, 1)
    assert scaled[0] == PLAIN[0]
    torch.testing.assert_close(scaled[-1], PLAIN[-1] / 4)
    assert bool((scaled <= PLAIN).all())
    assert bool((scaled >= PLAIN / 4 * 0.999).all())
    assert torch.equal(frequencies(YARN, 1000), scaled)
    assert table_scale(YARN) == pytest.approx(1 + 0.1 * torch.tensor(4.0).log().item())
    assert table_scale(dataclasses.replace(YARN, rope_attention=1.5)) == 1.5
    assert YARN.context == max(YARN.max_positions, 256)


@pytest.mark.parametrize(
    "config", [LONG, LLAMA3, YARN, dataclasses.replace(BASE, rope_scaling="dynamic", max_positions=16)]
)
def test_packed_documents_are_as_if_alone(config):
    torch.manual_seed(0)
    decoder = Decoder(config).eval()
    x = torch.randn(40, 32)
    positions = torch.cat([torch.arange(10), torch.arange(30)])
    with torch.no_grad():
        packed = decoder(x, positions, [0, 10, 40])
        alone = [decoder(x[a:b], positions[a:b], [0, b - a]) for a, b in ((0, 10), (10, 40))]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=0, atol=1e-5)


def test_how_far_an_answer_may_go():
    dynamic = dataclasses.replace(BASE, rope_scaling="dynamic", rope_factor=3.0)
    assert (LONG.context, LLAMA3.context, BASE.context, dynamic.context) == (64, 64, 64, 192)
    assert dataclasses.replace(dynamic, v2pe=True).context == 64  # V2PE replaces the scaling


def test_a_state_remembers_as_its_original_does():
    dynamic = dataclasses.replace(BASE, rope_scaling="dynamic")
    lengths = (10, 80, 70, 30, 66)
    states = RotaryState(dynamic), RotaryState(dynamic, resets=True), RotaryState(LONG)
    assert [[state.grow(length) for length in lengths] for state in states] == [
        [10, 80, 80, 80, 80],  # InternLM2
        [10, 80, 80, 30, 66],  # Llama, Qwen
        [10, 80, 70, 30, 66],  # Phi-3
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_short": (1.0,)}, "longrope has 1 short and 4 long factors; expected 4 each"),
        ({"rope_original_positions": 65}, "pre-trained at 65 positions; expected 2 to max_positions 64"),
        ({"rope_long": (1.0, 0.0, 1.0, 1.0)}, "must be positive numbers"),
    ],
)
def test_fields_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(LONG, **changes)
    with pytest.raises(ConfigError, match=r"blends between frequency factors 5\.0 and 4\.0"):
        dataclasses.replace(LLAMA3, rope_low_frequency=5.0)
