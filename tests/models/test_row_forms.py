"""Weights as rows: their compiled products against exact arithmetic, at every width, number of rows and of threads."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import get_args
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from vedere.models import compiled_token as compiled
from vedere.models.row_forms import FEW, Bits, Rows, has_compiler, suits, use_threads
from vedere.models.weight_forms import GROUP, quantise_rows

use_threads()  # numba's threads start outside of what is pretended below
widths = st.sampled_from([32, 64, 96, 160, 896, 2048, 4896])


def _random(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16)


def _stands_for(rows: Rows, weight: torch.Tensor) -> torch.Tensor:
    """The weight that a form stands for, in float64, out of what is packed."""
    if rows.bits == 16:
        return weight.double()
    assert rows.scales is not None
    if rows.bits == 8:
        return rows.packed.double() * rows.scales.double()[:, None]
    low, high = rows.packed & 15, rows.packed >> 4
    groups = [part.view(len(weight), -1, GROUP // 2) for part in (low, high)]
    steps = torch.cat(groups, 2).double()
    zeros = rows.zeros[:, : steps.shape[1]].double()
    return (zeros[..., None] + rows.scales.double()[..., None] * steps).flatten(1)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(get_args(Bits)),
    st.integers(1, 70),
    widths,
    st.integers(1, FEW),
    st.integers(1, 3),
    st.integers(0, 99),
)
def test_products_are_those_of_what_the_form_stands_for(
    bits: Bits, outputs: int, inputs: int, rows: int, threads: int, seed: int
) -> None:
    weight, x = _random(outputs, inputs, seed), _random(rows, inputs, seed + 1)
    form = Rows(weight, bits)
    exact = x.double() @ _stands_for(form, weight).t()
    with mock.patch("torch.get_num_threads", return_value=threads):
        got = form.few_rows()(x)
    assert got.dtype == x.dtype
    scale = x.double().norm(dim=1)[:, None] * _stands_for(form, weight).norm(dim=1)
    assert ((got.double() - exact).abs() <= 2**-8 * exact.abs() + 2e-4 * scale).all()
    assert torch.equal(form.few_rows()(x[:1]), got[:1])  # a row does not depend on those beside it


@pytest.mark.parametrize("inputs", [32, 896, 29_568])
def test_whole_numbers_never_overflow(inputs: int) -> None:
    """The largest numbers of one sign: every lane of the sum comes as near to its limit as it can."""
    weight = torch.ones(5, inputs, dtype=torch.bfloat16)
    for bits in (8, 4):
        got = Rows(weight, bits).few_rows()(torch.full((1, inputs), -3.0, dtype=torch.float32))  # type: ignore[arg-type]
        torch.testing.assert_close(got, torch.full((1, 5), -3.0 * inputs), rtol=1e-3, atol=0)


@pytest.mark.parametrize("bits", get_args(Bits))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_in_its_row_only(bits: Bits, bad: float) -> None:
    x = _random(3, 64, 1)
    x[1, 7] = bad
    got = Rows(_random(9, 64, 0), bits).few_rows()(x)
    assert not got[1].isfinite().any()
    assert got[[0, 2]].isfinite().all()


@pytest.mark.parametrize("bits", get_args(Bits))
def test_nothing_but_zeros(bits: Bits) -> None:
    form = Rows(torch.zeros(6, 64, dtype=torch.bfloat16), bits)
    assert not form.few_rows()(_random(2, 64, 0)).any()
    assert not Rows(_random(6, 64, 0), bits).few_rows()(torch.zeros(2, 64)).any()


def test_bfloat16_rows_are_the_weight_itself() -> None:
    weight = _random(7, 64, 0)
    assert Rows(weight, 16).packed.data_ptr() == weight.data_ptr()
    odd = _random(1, 7 * 64 + 1, 0)[0, 1:].view(7, 64)  # as a file may have it: not on a whole word
    form, x = Rows(odd, 16), _random(1, 64, 1)
    assert torch.equal(form.packed, odd)
    torch.testing.assert_close(form.few_rows()(x).float(), x.float() @ odd.float().t(), rtol=1e-2, atol=1e-2)
    across = _random(64, 7, 0).t()  # not contiguous
    torch.testing.assert_close(
        Rows(across, 16).few_rows()(x).float(), x.float() @ across.float().t(), rtol=1e-2, atol=1e-2
    )


def test_int8_is_rounded_as_everywhere() -> None:
    weight = _random(9, 64, 3)
    steps, scales = quantise_rows(weight)
    form = Rows(weight, 8)
    assert torch.equal(form.packed, steps)
    assert form.scales is not None
    assert torch.equal(form.scales, scales.float())


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 99))
def test_int4_is_half_a_step_off_at_most_and_many_rows_see_the_same(outputs: int, groups: int, seed: int) -> None:
    weight = _random(outputs, groups * GROUP, seed)
    form = Rows(weight, 4)
    assert form.scales is not None
    got = _stands_for(form, weight)
    step = form.scales.double().repeat_interleave(GROUP, 1)
    assert ((got - weight.double()).abs() <= 0.6 * step + 0.01 * weight.double().abs().amax()).all()
    assert torch.equal(form.expanded(), got.to(torch.bfloat16))


def test_rounding_to_bfloat16_is_torchs() -> None:
    bits = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    edges = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0x3F808000, 0x3F818000, 0x7F7FFFFF], np.uint32)
    values = np.concatenate([bits, edges]).view(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16)
    got = torch.from_numpy(np.array([compiled._narrow.py_func(v) for v in values[-2007:]]).view(np.int16))
    same = got.view(torch.bfloat16) == expected[-2007:]
    assert (same | expected[-2007:].isnan() & got.view(torch.bfloat16).isnan()).all()


def test_what_suits() -> None:
    assert suits(896)
    assert not suits(80)


def test_a_compiler_that_does_not_work_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_compiler()
    monkeypatch.setattr("numba.config.DISABLE_JIT", 1)
    assert not has_compiler.__wrapped__()
    monkeypatch.setitem(sys.modules, "numba", None)  # importing it fails, as with a numpy that it does not know
    assert not has_compiler.__wrapped__()


def test_torch_keeps_its_threads() -> None:
    code = (
        "import torch\n"
        "from vedere.models.row_forms import Rows\n"
        "Rows(torch.ones(8, 64, dtype=torch.bfloat16), 16).few_rows()(torch.ones(1, 64))\n"
        "print(torch.get_num_threads())\n"
    )
    environment = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_NUM_THREADS": "1"}
    reply = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert reply.stdout.split() == ["1"]


def test_threads_are_torchs_as_far_as_there_are_some() -> None:
    for threads in (1, 4096):
        with mock.patch("torch.get_num_threads", return_value=threads):
            assert 1 <= use_threads() <= threads
