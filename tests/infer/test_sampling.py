import dataclasses
import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vedere.errors import ConfigError
from vedere.infer.sampling import Sampler, SamplingParams, candidates, draw, penalise

LOGITS = st.lists(st.floats(-30, 30), min_size=1, max_size=200).map(lambda values: torch.tensor(values))
FEW = settings(max_examples=60, deadline=None)


def _dense(logits, **options):
    ids, probabilities = candidates(logits, **options)
    dense = torch.zeros(len(logits), dtype=torch.float64)
    dense[ids] = probabilities
    return dense


@FEW
@given(LOGITS, st.floats(0.05, 5))
def test_no_filter_is_softmax(logits, temperature):
    want = (logits.double() / temperature).softmax(0)
    torch.testing.assert_close(_dense(logits, temperature=temperature), want, rtol=1e-9, atol=1e-12)


@FEW
@given(LOGITS, st.integers(1, 250))
@example(torch.tensor([1.0, -3.7e-29, 0.0]), 2)  # equal once the largest is subtracted
def test_top_k_keeps_the_k_largest(logits, k):
    dense = _dense(logits, top_k=k)
    kept = dense > 0
    assert int(kept.sum()) <= k
    assert float(dense.sum()) == pytest.approx(1)
    if not bool(kept.all()):
        assert float(logits[kept].min()) >= float(logits[~kept].max())


@FEW
@given(LOGITS, st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_with_that_mass(logits, p):
    whole = logits.double().softmax(0)
    kept = _dense(logits, top_p=p) > 0
    mass = float(whole[kept].sum())
    assert mass >= p - 1e-9
    assert mass - float(whole[kept].min()) < p + 1e-9  # without its least probable token it would not do


@FEW
@given(LOGITS, st.floats(0.001, 0.999))
def test_min_p_is_relative_to_the_largest(logits, p):
    whole = logits.double().softmax(0)
    kept = _dense(logits, min_p=p) > 0
    assert float(whole[kept].min()) >= p * float(whole.max()) * (1 - 1e-12)
    if not bool(kept.all()):
        assert float(whole[~kept].max()) <= p * float(whole.max()) * (1 + 1e-12)


@FEW
@given(LOGITS, st.floats(0.1, 3), st.integers(0, 50), st.floats(0.05, 1), st.floats(0, 0.9))
def test_filters_renormalise(logits, temperature, k, p, m):
    whole = (logits.double() / temperature).softmax(0)
    dense = _dense(logits, temperature=temperature, top_k=k, top_p=p, min_p=m)
    kept = dense > 0
    assert bool(kept[dense.argmax()])
    torch.testing.assert_close(dense[kept], whole[kept] / whole[kept].sum(), rtol=1e-6, atol=1e-12)


def test_top_p_beyond_the_first_look():
    """A flat distribution needs more tokens than the first 64: the answer is that of a full sort."""
    logits = torch.randn(5000) * 0.1
    ids, _ = candidates(logits, top_p=0.9)
    whole = logits.double().softmax(0).sort(descending=True)
    count = int((whole.values.cumsum(0) - whole.values < 0.9).sum())
    assert count > 64
    assert torch.equal(ids, whole.indices[:count])


@FEW
@given(LOGITS, st.integers(0, 2**40))
def test_top_k_1_is_greedy(logits, seed):
    prompt = torch.tensor([0])
    one = Sampler(SamplingParams(temperature=1.3, top_k=1, seed=seed), prompt)
    greedy = Sampler(SamplingParams(), prompt)
    assert float(logits[one.choose(logits)]) == float(logits[greedy.choose(logits)]) == float(logits.max())


def test_temperature_near_zero_is_greedy():
    logits = torch.randn(100)
    for temperature in (1e-3, 1e-30, 1e-308):
        assert Sampler(SamplingParams(temperature=temperature, seed=1), torch.tensor([0])).choose(logits) == int(
            logits.argmax()
        )


@FEW
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(lambda p: sum(p) > 0.1), st.floats(0, 1, exclude_max=True)
)
def test_draw_inverts_the_distribution(weights, uniform):
    probabilities = torch.tensor(weights, dtype=torch.float64)
    place = draw(probabilities, uniform)
    assert weights[place] > 0
    below = sum(weights[:place])
    assert below <= uniform * sum(weights) + 1e-9
    assert below + weights[place] >= uniform * sum(weights) - 1e-9


def test_draw_at_the_very_end():
    assert draw(torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64), math.nextafter(1, 0)) == 1
    assert draw(torch.tensor([0.0, 1.0], dtype=torch.float64), 0.0) == 1


def test_draws_follow_the_probabilities():
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    sampler = Sampler(SamplingParams(temperature=1, seed=7), torch.tensor([0]))
    counts = torch.bincount(torch.tensor([sampler.choose(logits) for _ in range(4000)]), minlength=4) / 4000
    torch.testing.assert_close(counts, logits.softmax(0), rtol=0, atol=0.025)


def test_one_uniform_a_token_whatever_the_filters():
    """The generator's state after n tokens does not depend on the options."""
    logits, states = torch.randn(50), []
    for options in ({}, {"top_k": 3}, {"top_p": 0.4, "min_p": 0.1}, {"repetition_penalty": 1.2}):
        sampler = Sampler(SamplingParams(temperature=1, seed=3, **options), torch.tensor([0]))
        for _ in range(5):
            sampler.choose(logits)
        states.append(sampler.generator.get_state())
    assert all(torch.equal(state, states[0]) for state in states)


@FEW
@given(st.lists(st.floats(-5, 5), min_size=3, max_size=20), st.lists(st.integers(0, 2), max_size=9), st.floats(1, 4))
def test_penalty_lowers_what_was_seen_once(values, seen, penalty):
    logits = torch.tensor(values)
    result = penalise(logits, torch.tensor(seen, dtype=torch.int64), penalty)
    for index, value in enumerate(logits.tolist()):
        want = value if index not in seen else (value / penalty if value > 0 else value * penalty)
        assert float(result[index]) == pytest.approx(want, rel=1e-6)


def test_penalty_counts_the_answer():
    logits = torch.tensor([1.0, 0.9, 0.8])
    sampler = Sampler(SamplingParams(repetition_penalty=2.0), torch.tensor([2]))
    assert [sampler.choose(logits) for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("max_new_tokens", 0, "max_new_tokens is 0; expected at least 1"),
        ("temperature", -1.0, r"temperature is -1.0; expected 0 \(greedy\) or more"),
        ("temperature", math.nan, "temperature is nan"),
        ("top_k", -1, "top_k is -1"),
        ("top_p", 0.0, "top_p is 0.0; expected above 0"),
        ("top_p", 1.5, "top_p is 1.5"),
        ("min_p", 1.0, "min_p is 1.0"),
        ("repetition_penalty", 0.0, "repetition_penalty is 0.0"),
        ("seed", -1, "seed is -1"),
    ],
)
def test_ranges(name, value, expected):
    with pytest.raises(ConfigError, match=expected):
        dataclasses.replace(SamplingParams(), **{name: value})
