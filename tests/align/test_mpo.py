"""Laws of MPO's losses; their numbers equal a recording (tests/parity, ``loss-mpo``)."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.align.mpo import (
    LogProbs,
    MPOConfig,
    RewardShift,
    answer_log_probs,
    mpo_loss,
    preference_loss,
    quality_loss,
)
from vedere.errors import ConfigError

SUMS = st.lists(st.floats(-90, -1), min_size=4, max_size=4)


def sums(pairs: int, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-30 * torch.rand(pairs, generator=generator) - 5 for _ in range(4)]


def loss(one: list[torch.Tensor], shift: RewardShift | None = None, **config):
    policy, reference = LogProbs(chosen=one[0], rejected=one[1]), LogProbs(chosen=one[2], rejected=one[3])
    tokens = torch.full((len(one[0]),), 7)
    return mpo_loss(policy, reference, tokens, shift or RewardShift(), MPOConfig(**config))


def cost(x: float) -> float:
    """-log sigmoid(x)."""
    return max(-x, 0) + math.log1p(math.exp(-abs(x)))


@settings(deadline=None)
@given(st.lists(SUMS, min_size=1, max_size=4), st.floats(0.01, 1), st.floats(-2, 2))
def test_one_pair_after_the_other_by_hand(pairs, beta, mean):
    """The equations with plain numbers, the shift as a cumulative mean."""
    found = loss(
        [torch.tensor(column) for column in zip(*pairs, strict=True)], RewardShift(mean=mean, count=3), beta=beta
    )
    rewards = [(beta * (c - rc), beta * (r - rr)) for c, r, rc, rr in pairs]
    now = sum(map(sum, rewards)) / (2 * len(pairs))
    delta = (3 * mean + now) / 4
    assert found.shift.count == 4
    assert found.shift.mean == pytest.approx(delta, rel=1e-4, abs=1e-5)
    total = 0.0
    for chosen, rejected in rewards:
        total += (0.8 * cost(chosen - rejected) + 0.2 * (cost(chosen - delta) + cost(delta - rejected))) / len(pairs)
    total -= sum(pair[0] for pair in pairs) / (7 * len(pairs))
    assert float(found.total) == pytest.approx(total, rel=1e-3, abs=1e-3)


def test_the_shift_is_the_mean_of_all_micro_batches_whatever_their_size():
    shift, means = RewardShift(), []
    for seed, pairs in enumerate((1, 5, 2, 3)):
        found = loss(sums(pairs, seed), shift)
        means.append(float(torch.cat([found.chosen_rewards, found.rejected_rewards]).mean()))
        shift = found.shift
        assert shift.mean == pytest.approx(sum(means) / len(means), rel=1e-5)
    ranks = RewardShift(mean=1.0, count=4).after(torch.tensor([3.0, 5.0]), ranks=2)  # one scalar of each rank
    assert (ranks.mean, ranks.count) == (1 + 3 * 2 / 6, 6)


def test_no_gradient_goes_through_the_shift_or_the_reference():
    one = [part.requires_grad_() for part in sums(3)]
    found = loss(one, preference=0.0, generation=0.0, quality=1.0)
    found.total.backward()
    expected = [part.detach().clone().requires_grad_() for part in one]
    chosen, rejected = 0.1 * (expected[0] - expected[2]), 0.1 * (expected[1] - expected[3])
    quality_loss(chosen, rejected, found.shift.mean).mean().backward()  # the shift as a number
    assert torch.allclose(one[0].grad, expected[0].grad)
    assert torch.allclose(one[1].grad, expected[1].grad)
    assert one[2].grad is None
    assert one[3].grad is None


def test_a_policy_that_is_its_reference_knows_nothing():
    one = sums(4)
    found = loss([one[0], one[1], one[0].clone(), one[1].clone()])
    assert torch.allclose(found.preference, torch.full((4,), math.log(2)))
    assert torch.allclose(found.quality, torch.full((4,), 2 * math.log(2)))
    assert found.shift.mean == 0


def test_smoothing_and_weights():
    margin = torch.tensor([2.0, -1.0])
    smooth = preference_loss(margin, torch.zeros(2), 0.25)
    assert torch.allclose(
        smooth, 0.75 * preference_loss(margin, torch.zeros(2)) + 0.25 * preference_loss(-margin, torch.zeros(2))
    )
    one = sums(3)
    parts = [
        loss(one, **{"preference": 0, "quality": 0, "generation": 0} | {name: weight}).total
        for name, weight in (("preference", 0.8), ("quality", 0.2), ("generation", 1.0))
    ]
    assert float(loss(one).total) == pytest.approx(float(sum(parts)), rel=1e-6)


def test_log_probs_are_of_the_labels_alone_and_of_the_next_token():
    logits = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([[-100, -100, 3, 4, 8, -100], [5, -100, -100, -100, 2, 1]])
    found, tokens = answer_log_probs(logits, labels)
    table = logits.log_softmax(-1)
    assert tokens.tolist() == [3, 2]  # the first label has nobody to predict it
    by_hand = [table[0, 1, 3] + table[0, 2, 4] + table[0, 3, 8], table[1, 3, 2] + table[1, 4, 1]]
    assert torch.allclose(found, torch.stack(by_hand))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MPOConfig(beta=0), r"beta 0, label_smoothing 0.0; expected a beta above 0"),
        (lambda: MPOConfig(quality=-1), r"quality -1; expected at least 0"),
        (lambda: MPOConfig(preference=0, quality=0, generation=0), r"all three losses have weight 0"),
        (lambda: loss([torch.zeros(0)] * 4), r"one number for each of at least one pair"),
        (lambda: loss([*sums(2)[:3], torch.zeros(3)]), r"sums of shapes \[\(2,\), \(3,\)\]"),
        (lambda: loss([torch.tensor([math.inf]), *sums(1)[1:]]), r"the mean of 2 rewards is inf"),
        (
            lambda: mpo_loss(LogProbs(chosen=sums(2)[0], rejected=sums(2)[1]), LogProbs(chosen=sums(2)[2], rejected=sums(2)[3]),
                             torch.tensor([3, 0]), RewardShift()),
            r"chosen answers of \[3, 0\] tokens; every one needs at least one label: drop the pair",
        ),
        (lambda: answer_log_probs(torch.zeros(2, 5, 3), torch.zeros(2, 4)), r"labels \[2, 4\] for logits \[2, 5, 3\]"),
    ],
)  # fmt: skip
def test_refusals(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
