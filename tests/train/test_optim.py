"""AdamW with masters: schedule, groups, clipping, state."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn

from vedere.errors import ConfigError, TrainingError
from vedere.train import precision
from vedere.train.optim import Optimizer, decays, learning_rate
from vedere.train.precision import training_dtype
from vedere.train.stages import OptimConfig


def toy(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    return model.bfloat16().to(dtype)  # values that both formats have


def feed(model: nn.Module, step: int, size: float = 1.0) -> None:
    """Gradients that bfloat16 can hold, the same for every model."""
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        gradient = (torch.randn(parameter.shape, generator=generator) * size).bfloat16()
        parameter.grad = gradient.to(parameter.dtype)


def run(model: nn.Module, config: OptimConfig, steps: int, packs: int = 1, **options: Any) -> Optimizer:
    optimizer = Optimizer(model, config, 20)
    for step in range(steps):
        for _ in range(packs):
            feed(model, step, **options)
            optimizer.collect()
        optimizer.step(1.0)
    return optimizer


def test_masters_walk_the_float32_path() -> None:
    config = OptimConfig(lr=1e-2, weight_decay=0.1)
    wide, narrow = toy(), toy(torch.bfloat16)
    run(wide, config, 12)
    optimizer = run(narrow, config, 12)
    for (name, expected), found in zip(wide.named_parameters(), narrow.parameters(), strict=True):
        assert torch.equal(optimizer.masters[name], expected)
        assert torch.equal(found, expected.bfloat16())


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    """600 steps of 1e-5: each is far below bfloat16's spacing at 1.0, so without a master the weight would stay."""
    assert float(torch.tensor(1.0).bfloat16() - 1e-5) == 1.0
    narrow = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.ones_(narrow.weight)
    optimizer = Optimizer(narrow, OptimConfig(lr=1e-5, warmup=0, schedule="constant", weight_decay=0, clip=0), 600)
    for _ in range(600):
        narrow.weight.grad = torch.ones_like(narrow.weight)
        optimizer.collect()
        optimizer.step(1.0)
    assert optimizer.masters["weight"].item() == pytest.approx(1 - 6e-3, rel=1e-4)
    assert narrow.weight.item() == torch.tensor(1 - 6e-3).bfloat16().item() < 1


def test_gradients_of_several_packs_add_up_in_float32() -> None:
    config = OptimConfig(clip=0, weight_decay=0)
    narrow = toy(torch.bfloat16)
    optimizer = Optimizer(narrow, config, 10)
    for value in (1.0, 2**-9, 2**-9):  # bfloat16 would lose the small ones
        for parameter in narrow.parameters():
            parameter.grad = torch.full_like(parameter, value)
        optimizer.collect()
        assert all(parameter.grad is None for parameter in narrow.parameters())
    assert all(
        float(master.grad.flatten()[0]) == 1 + 2**-8 for master in optimizer.masters.values() if master.grad is not None
    )


def test_schedule_by_hand() -> None:
    cosine = OptimConfig(lr=1.0, warmup=4, schedule="cosine", final=0.1)
    rates = [learning_rate(step, 12, cosine) for step in range(13)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.1 + 0.9 * 0.5)
    assert rates[12] == pytest.approx(0.1)
    constant = OptimConfig(lr=2.0, warmup=0.25, schedule="constant")
    assert [learning_rate(step, 8, constant) for step in range(4)] == pytest.approx([2 / 3, 4 / 3, 2, 2])
    assert learning_rate(0, 8, OptimConfig(lr=3.0, warmup=0)) == 3.0


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 200),
    warmup=st.one_of(st.floats(0, 0.99), st.integers(1, 50)),
    schedule=st.sampled_from(["constant", "cosine"]),
    final=st.floats(0, 1),
)
def test_rates_rise_then_fall_and_stay_in_bounds(steps: int, warmup: float, schedule: Any, final: float) -> None:
    config = OptimConfig(lr=1.0, warmup=warmup, schedule=schedule, final=final)
    rates = [learning_rate(step, steps, config) for step in range(steps)]
    assert all(0 < rate <= 1 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert all(later <= before + 1e-12 for before, later in zip(rates[top:], rates[top + 1 :], strict=False))
    after = math.ceil(warmup if warmup >= 1 else warmup * steps)
    assert all(rate >= (1 if schedule == "constant" else final) - 1e-12 for rate in rates[after:])


def test_decay_reaches_matrices_only() -> None:
    model = toy()
    optimizer = Optimizer(model, OptimConfig(weight_decay=0.5), 10)
    names = {id(master): name for name, master in optimizer.masters.items()}
    decayed = {names[id(p)] for g in optimizer.adamw.param_groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {"0.weight", "2.weight"}
    assert {g["weight_decay"] for g in optimizer.adamw.param_groups} == {0.0, 0.5}
    table = torch.zeros(5, 5)
    assert decays("vision.patch.weight", torch.zeros(3, 3, 2, 2))
    assert not decays("vision.positions", table)
    assert not decays("vision.cls", torch.zeros(5))


def test_rates_by_pattern() -> None:
    config = OptimConfig(lr=1.0, warmup=0, schedule="constant", lr_scale=(("0.*", 3.0), ("*.weight", 0.5)))
    optimizer = Optimizer(toy(), config, 10)
    feed_and_step = run(toy(), config, 1)
    for made in (optimizer, feed_and_step):
        names = {id(master): name for name, master in made.masters.items()}
        scales = {names[id(p)]: g["scale"] for g in made.adamw.param_groups for p in g["params"]}
        assert scales == {"0.weight": 3, "0.bias": 3, "1.weight": 0.5, "1.bias": 1, "2.weight": 0.5, "2.bias": 1}
    assert {group["lr"] for group in feed_and_step.adamw.param_groups} == {3.0, 0.5, 1.0}


@pytest.mark.parametrize("size", [0.01, 100.0])
def test_clipping_limits_the_global_norm(size: float) -> None:
    """Adam's first moment after one step is (1 - beta1) times the gradient that it was given."""
    model, config = toy(), OptimConfig(clip=1.0, beta1=0.5)
    feed(model, 0, size)
    gradients = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    optimizer = Optimizer(model, config, 10)
    denominator = 4.0
    norm, _ = optimizer.step(denominator)
    assert norm == pytest.approx(float(gradients.norm()) / denominator, rel=1e-5)
    given = torch.cat([optimizer.adamw.state[p]["exp_avg"].flatten() for p in model.parameters()]) / 0.5
    torch.testing.assert_close(given, gradients / denominator * min(1.0, 1.0 / norm), rtol=1e-4, atol=1e-9)


def test_without_clipping_large_gradients_pass() -> None:
    model = toy()
    feed(model, 0, 100.0)
    expected = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    optimizer = Optimizer(model, OptimConfig(clip=0, beta1=0.5), 10)
    optimizer.step(1.0)
    given = torch.cat([optimizer.adamw.state[p]["exp_avg"].flatten() for p in model.parameters()]) / 0.5
    torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_state_round_trip_continues_bit_by_bit(dtype: torch.dtype) -> None:
    config = OptimConfig(lr=1e-2)
    model = toy(dtype)
    optimizer = run(model, config, 4)
    copied = toy(dtype)
    copied.load_state_dict(model.state_dict())
    again = Optimizer(copied, config, 20)
    again.load_state(load(save({name: tensor.contiguous() for name, tensor in optimizer.state().items()})))
    assert again.step_count == 4
    for step in range(4, 9):
        for net, made in ((model, optimizer), (copied, again)):
            feed(net, step)
            made.collect()
            made.step(1.0)
    for expected, found in zip(model.parameters(), copied.parameters(), strict=True):
        assert torch.equal(expected, found)


def test_state_goes_to_the_device_of_the_parameters() -> None:
    """A checkpoint is read onto the CPU; the optimiser of a model elsewhere must not keep it there."""
    saved = run(toy(), OptimConfig(), 2).state()
    elsewhere = Optimizer(toy().to("meta"), OptimConfig(), 20)
    elsewhere.load_state(saved)
    kept = [value for state in elsewhere.adamw.state.values() for value in state.values()]
    assert kept
    assert {value.device.type for value in kept} == {"meta"}


def test_state_of_other_parameters_is_refused() -> None:
    other = Optimizer(nn.Linear(4, 4), OptimConfig(), 3)
    for master in other.masters.values():
        master.grad = torch.ones_like(master)
    other.step(1.0)
    with pytest.raises(TrainingError, match=r"optimiser state of other parameters: \['exp_avg.bias'"):
        Optimizer(toy(), OptimConfig(), 3).load_state(other.state())


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(value: float) -> None:
    model = toy()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = Optimizer(model, OptimConfig(), 10)
    feed(model, 0)
    model[0].weight.grad[0, 0] = value
    with pytest.raises(TrainingError, match=r"gradient norm (nan|inf); the weights were not changed"):
        optimizer.step(1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.step_count == 0


def test_a_step_that_reached_no_parameter_changes_nothing() -> None:
    model = toy()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    norm, rate = Optimizer(model, OptimConfig(weight_decay=0.5), 10).step(5.0)
    assert norm == 0
    assert rate > 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_number_formats() -> None:
    cpu = torch.device("cpu")
    assert training_dtype("bf16", cpu) == torch.bfloat16
    assert training_dtype("fp32", torch.device("cuda")) == torch.float32
    assert training_dtype("auto", torch.device("cuda")) == torch.bfloat16
    with pytest.raises(ConfigError, match="float16 overflows in these models"):
        training_dtype("fp16", cpu)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown precision 'fp8'; expected auto, bf16 or fp32"):
        training_dtype("fp8", cpu)  # type: ignore[arg-type]


@pytest.mark.parametrize(("gain", "chosen"), [(4.0, torch.bfloat16), (1.1, torch.float32), (0.5, torch.float32)])
def test_a_cpu_takes_the_format_whose_matmuls_are_clearly_faster(monkeypatch, gain, chosen) -> None:
    speeds = {torch.bfloat16: gain, torch.float32: 1.0}
    monkeypatch.setattr(precision, "matmul_limit", lambda device, dtype: speeds[dtype])
    assert training_dtype("auto", torch.device("cpu")) == chosen
