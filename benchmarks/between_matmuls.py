"""What stands between the matmuls on a CPU: each fast form against the readable one that it replaces.

    python benchmarks/between_matmuls.py [--rounds 7]

Processor time of one thread, so that a busy machine disturbs little; results are compared first, contenders take turns.

* ``token``     a decoded token of a model with InternVL3-1B's layers and heads but hardly any weights: the general pass of the
                decoder against the engine's step of single tokens, per form of the weights (hidden states are float32 in the
                step that numba compiles: its distance to the general pass is the rounding of that);
* ``training``  attention of a training pack (27 documents of about 32 tokens, a prefix of 4, SmolLM2's heads), forward and
                backward: autograd's form against the one with its gradient written out;
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from harness import store

from vedere.infer.allocator import keep_freed_memory
from vedere.infer.cache import Cache
from vedere.infer.fused_step import token_step
from vedere.models.attention import Attention, AttentionExpert, AttentionPass
from vedere.models.decoder import Decoder, DecoderConfig
from vedere.models.experts import SpanRouter
from vedere.models.positions import rotary_table
from vedere.models.quantized import pack_weights
from vedere.train.prefix import PrefixCache

BF16 = torch.bfloat16
Call = Callable[[], torch.Tensor]


def compare(
    name: str,
    readable: Call,
    fast: Call,
    rounds: int,
    calls: int,
    tolerance: float = 0.03,
) -> dict[str, Any]:
    """Milliseconds of processor time a call, in turn; the least of the rounds, which other programs disturbed least."""
    right, found = readable().float(), fast().float()
    assert float((found - right).norm()) < tolerance * float(right.norm()), f"{name} computes something else"
    times: dict[str, list[float]] = {"readable": [], "fast": []}
    for _ in range(rounds):
        for who, call in (("readable", readable), ("fast", fast)):
            begun = time.thread_time()
            for _ in range(calls):
                call()
            times[who].append(1e3 * (time.thread_time() - begun) / calls)
    least = {who: min(each) for who, each in times.items()}
    ratio = statistics.median(a / b for a, b in zip(times["readable"], times["fast"], strict=True))
    print(f"{name:14} {least['readable']:7.2f} ms  {least['fast']:7.2f} ms  {ratio:5.2f} x")
    return {"ms": times, "least_ms": least, "median_ratio": ratio}


def token(form: str, rounds: int) -> dict[str, Any]:
    """A token after 320 cached ones."""
    torch.manual_seed(0)
    config = DecoderConfig(
        hidden_size=64,
        ffn_size=64,
        layers=24,
        heads=14,
        kv_heads=2,
        head_dim=64,
        vocab_size=1024,
        norm_eps=1e-6,
        qkv_bias=True,
    )
    model = pack_weights(Decoder(config).to(BF16).eval(), form)  # type: ignore[arg-type]
    assert isinstance(model, Decoder)
    cache, length = Cache(config, dtype=BF16, capacity=384), 320
    window = cache.window(0, [length])
    model(model.embed(torch.arange(length)), torch.arange(length), [0, length], cache=window)
    cache.commit(window)
    step, ids, positions = token_step(model), torch.tensor([7]), torch.tensor([length])

    def general() -> torch.Tensor:
        return model(model.embed(ids), positions, [0, 1], cache=cache.window(0, [1]))  # type: ignore[no-any-return]

    return compare(
        f"token, {form}", general, lambda: step(ids, positions, cache.window(0, [1])), rounds, 10, tolerance=0.05
    )


def training(rounds: int) -> dict[str, Any]:
    """The part of a layer between the query map and the output map."""
    torch.manual_seed(0)
    lengths = [28 + (7 * number) % 9 for number in range(27)]
    borders, tokens = [0, *itertools.accumulate(lengths)], sum(lengths)
    types = torch.zeros(tokens, dtype=torch.uint8)
    for start in borders[:-1]:
        types[start : start + 16] = 1
    router = SpanRouter(types, tokens)
    assert router.order is not None
    cos, sin = rotary_table(torch.cat([torch.arange(n) + 4 for n in lengths]), 64, 1e4, BF16)
    table = cos[router.order], sin[router.order]
    keys, values = torch.randn(2, 1, 3, 4, 64).to(BF16)
    layer = Attention(AttentionExpert(960, 9, 3, 64, False, False), None, 9, 3, 64)
    qkv, towards = torch.randn(tokens, 960).to(BF16), torch.randn(tokens, 576).to(BF16)

    def run(fast: bool) -> torch.Tensor:
        step = AttentionPass(borders, router, qkv.device, 64, "explicit", PrefixCache([keys], [values], len(lengths)))
        own = qkv.clone().requires_grad_()
        slow = mock.patch.object(AttentionPass, "attend_learning", return_value=None)
        with mock.patch.object(layer, "route", lambda x, *_: x):
            if fast:
                out = layer.attend(own, router, table, step, 0)
            else:
                with slow:
                    out = layer.attend(own, router, table, step, 0)
        out.backward(towards)
        assert own.grad is not None
        return torch.cat([out.detach(), own.grad], 1)

    return compare("training", lambda: run(False), lambda: run(True), rounds, 5)


def main() -> None:
    """Compares, times, stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"{'':14}   readable        fast")
    results = {"training": training(options.rounds)}
    with torch.inference_mode():
        results |= {f"token, {form}": token(form, options.rounds) for form in ("bf16", "bf16-single", "int8", "int4")}
    store("between_matmuls", results)


if __name__ == "__main__":
    main()
