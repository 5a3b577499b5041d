"""docs/releases.md says what the code says, and its memory is that of real tensors."""

from pathlib import Path

import pytest
import torch

import tiny_internvl
from vedere.models.quantized import QuantLinear
from vedere.models.release_table import page, weight_bytes
from vedere.models.releases import RELEASES
from vedere.models.row_forms import has_compiler, quantised_bytes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "releases.md"


def test_the_page_is_the_one_that_the_code_makes():
    assert PAGE.read_text("utf-8") == page(), "run: python -m vedere.models.release_table > docs/releases.md"


def test_every_release_has_both_lines_and_says_its_licence():
    lines = PAGE.read_text("utf-8").splitlines()
    for name, release in RELEASES.items():
        first, second = (line for line in lines if line.startswith(f"| {name} |"))
        assert release.repository in first
        assert f"{release.context:,}" in first
        assert release.licence in second


@pytest.mark.parametrize("tied", [True, False])
def test_bytes_are_those_of_the_tensors(tied):
    model = tiny_internvl.model(tiny_internvl.config(tied_head=tied))
    named = dict(model.named_parameters())
    assert weight_bytes(model.config, 16) == sum(2 * tensor.numel() for tensor in named.values())
    language = {
        id(module.weight): module.weight
        for name, module in model.decoder.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight is not model.decoder.embed.weight
    }
    rest = weight_bytes(model.config, 16) - sum(2 * tensor.numel() for tensor in language.values())
    shapes = [tensor.shape for tensor in language.values()]
    shapes += [model.decoder.embed.weight.shape] if tied else []
    for bits in (8, 4):
        assert weight_bytes(model.config, bits) == rest + sum(quantised_bytes(*shape, bits) for shape in shapes)


@pytest.mark.parametrize("shape", [(1152, 896), (896, 4864), (9728, 896)], ids=str)
@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("compiler", [True, False])
def test_quantised_bytes_are_those_of_the_form(shape, bits, compiler, monkeypatch):
    if compiler and not has_compiler():
        pytest.skip("numba is not installed")
    monkeypatch.setattr("vedere.models.row_forms.has_compiler", lambda: compiler)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # more threads make narrower blocks
    kept = QuantLinear(torch.zeros(shape, dtype=torch.bfloat16), None, f"int{bits}").kept
    real = sum(value.nbytes for value in vars(kept).values() if isinstance(value, torch.Tensor))
    if compiler:
        assert quantised_bytes(*shape, bits) == real
    else:
        assert quantised_bytes(*shape, bits) == pytest.approx(real, rel=0.13)


def test_fewer_bits_are_fewer_bytes():
    for release in RELEASES.values():
        sizes = [weight_bytes(release.model, bits) for bits in (16, 8, 4)]
        assert sizes == sorted(sizes, reverse=True)
