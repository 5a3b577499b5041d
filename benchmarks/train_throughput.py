"""Training speed: one micro-batch of EViP S1 on the shape of vedere-mini, forward and backward.

Frozen SmolLM2-135M with 80 M visual experts, 112 px pictures of 16 tokens, documents of about 38 tokens. Contenders, all with
the same weights and documents; their losses and gradients are compared before anything is timed:

* ``padded``    a plain loop: documents padded to ``[B, L, D]``, both experts on every token and blended by the mask (as the
                original does), logits of every position;
* ``packed``    vedere with the ``sdpa`` backend: packed ``[T, D]`` rows, routed experts, last layer and head on target rows
                only, nothing behind the last target of a document;
* ``explicit``  the same with explicit attention;
* ``prefix``    the same with the documents' common beginning computed once (what `vedere train` runs on a CPU);
* ``flex``      FlexAttention over the whole pack (what it runs on CUDA; only there).

    python benchmarks/train_throughput.py [--threads 2] [--rounds 5] [--documents 54] [--precision auto] [--name NAME]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from dataclasses import replace
from typing import Any

from vedere.train.allocator import restart_with_settings

if __name__ == "__main__":
    restart_with_settings()  # before torch allocates anything, as `vedere train` does

import torch
from harness import interleave, ratios, store
from torch.nn import functional as F

from vedere.models.attention import Backend
from vedere.models.footprint import MINI
from vedere.models.mono_internvl import MonoInternVL
from vedere.models.patches import PatchConfig
from vedere.models.positions import rotary_table
from vedere.train.batch import Batch
from vedere.train.flops import training_flops
from vedere.train.loop import backward
from vedere.train.precision import matmul_limit, training_dtype
from vedere.train.prefix import SharedPrefix
from vedere.train.stages import VISUAL_PARTS, set_trainable


def mini_shape(dtype: torch.dtype, device: torch.device, **decoder: Any) -> MonoInternVL:
    """vedere-mini's decoder in S1.1 behind bare patches of 112 px pictures, random weights; ``decoder`` changes its shape."""
    torch.manual_seed(0)
    vision = PatchConfig(width=256, patch=14, tile=112)
    model = MonoInternVL(replace(MINI, vision=vision, decoder=replace(MINI.decoder, visual_attention=False, **decoder)))
    model.decoder.embed.weight.data.mul_(0.02)
    set_trainable(model, VISUAL_PARTS)
    return model.to(device, dtype)


def documents(count: int, dtype: torch.dtype, device: torch.device, vocabulary: int = MINI.decoder.vocab_size) -> Batch:
    """Documents of 34 to 42 tokens: 4 text, 16 visual, a question, and 4 targets at the end."""
    lengths = [34 + (7 * number) % 9 for number in range(count)]
    borders = [0, *itertools.accumulate(lengths)]
    tokens = borders[-1]
    ids = torch.randint(20, vocabulary, (tokens,))
    types = torch.zeros(tokens, dtype=torch.uint8)
    rows = []
    for start, end in itertools.pairwise(borders):
        ids[start : start + 4] = torch.tensor([1, 93, 98, 3])
        types[start + 4 : start + 20] = 1
        rows += list(range(end - 6, end - 2))
    rows_M = torch.tensor(rows)
    return Batch(
        ids=ids.to(device),
        positions=torch.cat([torch.arange(length) for length in lengths]).to(device),
        borders=borders,
        span_types=types.to(device),
        pixels=torch.randn(count, 3, 112, 112).to(device, dtype),
        rows=rows_M.to(device),
        targets=ids[rows_M + 1].to(device),
        weights=torch.ones(len(rows), device=device),
        names=tuple(map(str, range(count))),
    )


def padded_step(model: MonoInternVL, batch: Batch) -> float:
    """The plain loop: a padded batch, dense blend of both experts, full logits."""
    lengths = [end - start for start, end in itertools.pairwise(batch.borders)]
    longest, count = max(lengths), len(lengths)
    device = batch.ids.device
    place = torch.cat([torch.arange(n, device=device) + longest * k for k, n in enumerate(lengths)])

    def pad(x: torch.Tensor) -> torch.Tensor:
        out = x.new_zeros(count * longest, *x.shape[1:])
        return out.index_copy(0, place, x).view(count, longest, *x.shape[1:])

    decoder, config = model.decoder, model.decoder.config
    x = pad(model.embed(batch.ids, batch.span_types, batch.pixels))
    mask = pad(batch.span_types)[..., None].to(x.dtype)
    cos, sin = rotary_table(torch.arange(longest, device=device), config.head_dim, config.rope_theta, x.dtype)
    for layer in decoder.layers:
        z = layer.attention_norm(x)
        qkv = layer.attention.text.qkv(z).view(count, longest, -1, config.head_dim).transpose(1, 2)
        q, k, v = qkv.split([config.heads, config.kv_heads, config.kv_heads], dim=1)
        q, k = (y * cos + torch.cat([-y.chunk(2, -1)[1], y.chunk(2, -1)[0]], -1) * sin for y in (q, k))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + layer.attention.text.out(out.transpose(1, 2).reshape(count, longest, -1))
        z = layer.ffn_norm(x)
        x = x + (1 - mask) * layer.ffn.text(z) + mask * layer.ffn.visual(z)
    logits = decoder.logits(decoder.norm(x)).flatten(0, 1)
    labels = torch.full((count * longest,), -100, device=device)
    labels[place[batch.rows]] = batch.targets
    loss = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    loss.backward()
    return float(loss.detach())


def compare(model: MonoInternVL, batch: Batch, rounds: int) -> dict[str, Any]:
    """Losses and gradients of all contenders against each other, then their speed; prints and returns it.

    Args:
        model: Random weights; its device and dtype are what is measured.
        batch: One micro-batch.
        rounds: Calls of each contender.
    """
    device, dtype = model.device, model.dtype
    prefix = SharedPrefix(model.decoder)
    learning = [p for p in model.parameters() if p.requires_grad]

    def run(backend: Backend, shared: SharedPrefix | None = None) -> float:
        model.decoder.backend = backend
        return backward(model, batch, shared)

    contenders = {
        "padded": lambda: padded_step(model, batch),
        "packed": lambda: run("sdpa"),
        "explicit": lambda: run("explicit"),
        "prefix": lambda: run("explicit", prefix),
    }
    if device.type == "cuda":
        contenders["flex"] = lambda: run("flex")
    losses, gradients = {}, {}
    for name, call in contenders.items():
        model.zero_grad()
        losses[name] = call()
        gradients[name] = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in learning]
        )
    tolerance = 1e-3 if dtype == torch.float32 else 3e-2
    scale = gradients["padded"].norm()
    for name in contenders:
        loss_error = abs(losses[name] - losses["padded"]) / abs(losses["padded"])
        gradient_error = float((gradients[name] - gradients["padded"]).norm() / scale)
        print(
            f"{name:9} loss {losses[name]:.4f}  relative difference: loss {loss_error:.1e}, gradient {gradient_error:.1e}"
        )
        assert max(loss_error, gradient_error) < tolerance, f"{name} computes something else"
    gradients.clear()
    seconds = interleave(contenders, rounds)
    shape = model.decoder.config
    limit = matmul_limit(device, dtype, shape.hidden_size, 2 * shape.ffn_size)
    tokens = len(batch.ids)
    flops = training_flops(model.decoder, batch.borders, int(batch.span_types.sum()), len(batch.targets))
    speed = {name: tokens / statistics.median(times) for name, times in seconds.items()}
    gain = ratios(seconds, "padded")
    for name in contenders:
        mfu = flops * speed[name] / tokens / limit
        print(
            f"{name:9} {speed[name]:7.0f} useful tokens/s  {gain[name]:5.2f} x padded  {mfu:4.0%} of the matmul limit"
        )
    at_limit = limit * tokens / flops
    summary = f"limit {limit / 1e9:.0f} GFLOP/s = {at_limit:.0f} tokens/s; {flops / tokens / 1e6:.0f} MFLOP a token"
    print(f"{summary}; {dtype}")
    return {
        "dtype": str(dtype),
        "tokens": tokens,
        "flops_per_token": flops / tokens,
        "matmul_limit_flops": limit,
        "tokens_per_second": speed,
        "ratio_to_padded": gain,
        "seconds": seconds,
    }


def main() -> None:
    """Compares, times, stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--documents", type=int, default=54)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--name", help="of the stored results; default train_throughput_DEVICE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    dtype = training_dtype(options.precision, device)
    result = compare(mini_shape(dtype, device), documents(options.documents, dtype, device), options.rounds)
    store(options.name or f"train_throughput_{device.type}", result)


if __name__ == "__main__":
    main()
