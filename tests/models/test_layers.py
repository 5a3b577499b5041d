"""Fast forms against readable forms."""

import pytest
import torch

from vedere.models.layers import RMSNorm, SwiGLU


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 32), (2, 3, 32)])
def test_norm_equals_its_readable_form(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    norm = RMSNorm(32, 1e-5).to(dtype)
    norm.weight.data.normal_()
    grad = torch.randn(shape).to(dtype)
    results = []
    for form in (norm.forward, norm.reference):
        x = torch.linspace(-3, 3, grad.numel()).view(shape).to(dtype).requires_grad_()
        norm.weight.grad = None
        y = form(x)
        y.backward(grad)
        results.append((y.detach(), x.grad, norm.weight.grad))
    tolerance = {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.06, "rtol": 0.02}
    for fast, readable in zip(*results, strict=True):
        torch.testing.assert_close(fast, readable, **tolerance)


def test_norm_statistics_are_taken_in_float32() -> None:
    norm = RMSNorm(4, 0.0).to(torch.bfloat16)
    x = torch.tensor([[256.0, 1.0, 1.0, 1.0]], dtype=torch.bfloat16)
    exact = x.double() / x.double().pow(2).mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(norm(x), exact.to(torch.bfloat16), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gate_equals_its_readable_form(dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    ffn = SwiGLU(16, 24).to(dtype)
    grad = torch.randn(5, 16).to(dtype)
    results = []
    for gated in (None, SwiGLU.gated):
        x = torch.linspace(-2, 2, 80).view(5, 16).to(dtype).requires_grad_()
        ffn.zero_grad()
        y = ffn(x) if gated is None else ffn.down(gated(ffn.gate_up(x)))
        y.backward(grad)
        results.append((y.detach(), x.grad, ffn.gate_up.weight.grad, ffn.down.weight.grad))
    tolerance = {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    for fast, readable in zip(*results, strict=True):
        torch.testing.assert_close(fast, readable, **tolerance)
