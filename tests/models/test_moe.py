"""The mixture of experts against its definition, written token by token."""

import pytest
import torch
from torch.nn import functional as F

from vedere.models.footprint import parameters
from vedere.models.moe import MoE
from vedere.models.releases import RELEASES


def by_hand(moe, x):
    rows = []
    for token in x:
        weights = torch.softmax(moe.router.weight @ token, 0)
        best, members = weights.topk(moe.active)
        if moe.normed:
            best = best / best.sum()
        total = torch.zeros_like(token)
        for weight, member in zip(best, members, strict=True):
            gate, up = (moe.gate_up[member] @ token).chunk(2)
            total = total + weight * (moe.down[member] @ (F.silu(gate) * up))
        rows.append(total)
    return torch.stack(rows)


def small(size=5, active=2, normed=True):
    torch.manual_seed(0)
    moe = MoE(8, 6, size, active, normed)
    with torch.no_grad():
        for parameter in moe.parameters():
            parameter.normal_()
    return moe


@pytest.mark.parametrize(("size", "active", "normed"), [(5, 2, True), (5, 3, False), (1, 1, True), (4, 4, False)])
def test_it_is_the_weighted_sum_of_the_best_members(size, active, normed):
    moe, x = small(size, active, normed), torch.randn(11, 8)
    torch.testing.assert_close(moe(x), by_hand(moe, x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moe(x[:1]), by_hand(moe, x[:1]), rtol=1e-5, atol=1e-5)


def test_members_without_tokens_are_not_touched():
    moe, x = small(), torch.randn(1, 8)
    used = set(moe.route(x)[1].flatten().tolist())
    expected = moe(x).detach()
    with torch.no_grad():
        for member in set(range(5)) - used:
            moe.gate_up[member] = torch.nan
    assert len(used) == 2
    assert torch.equal(moe(x), expected)
    moe(x).sum().backward()
    idle = [member for member in range(5) if member not in used]
    assert all(not moe.down.grad[member].any() for member in idle)


def test_bfloat16_stays_bfloat16():
    moe, x = small().bfloat16(), torch.randn(4, 8).bfloat16()
    assert moe(x).dtype == torch.bfloat16


def test_a_token_reads_eight_of_128_members():
    model = RELEASES["internvl3.5-30b-a3b"].model
    counted, decoder = parameters(model), model.decoder
    idle = decoder.layers * 120 * 3 * decoder.hidden_size * decoder.ffn_size
    assert (
        counted.active_text
        == sum(counted.parts[part] for part in ("embedding", "head", "attention", "feed-forward", "norms")) - idle
    )
