"""What weight-only int8 and int4 cost in quality: perplexity and logits of SmolLM2-135M-Instruct, a trained language model.

    python benchmarks/quantization_quality.py [--tokens 16384] [--window 512] [--text FILE] [--threads 2]

The default text is the reference of the Python language that CPython itself brings (``pydoc_data.topics``, PSF licence):
English prose with code, the same for everyone with that version; ``--text`` takes files of yours beside it. A text is cut into
windows, each read from its beginning; every token but a window's first counts.

The weights of the embedded language model come from a 4-bit file (Q4_1), with groups of 32 inputs like those of int4 here.
Rounding them again onto nearly the same grid costs little and tells little. So the model is measured a second time with its
channels shuffled: one permutation of the residual stream, one of each layer's feed-forward channels, one of each value head's.
That changes no output (asserted in float32), but each group of 32 then holds inputs of many old groups, like the weights of a
model that was never rounded. Its row, ``int4, shuffled``, is the figure to go by. Rows that end in ``singly`` are fed a token
at a time, as answers are: by the products of few rows, which round inputs to 15 bits.

Logits are compared with those of the same numbers in float32: mean and largest absolute difference, relative norm, mean
Kullback-Leibler divergence in nats, and how often the likeliest token is the same. bfloat16's own rounding is in the table
beside them.
"""

from __future__ import annotations

import argparse
import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from harness import store
from torch import Tensor

from vedere.infer.cache import Cache
from vedere.infer.fused_step import token_step
from vedere.models.checkpoints import load_model
from vedere.models.decoder import Decoder
from vedere.models.quantized import pack_weights
from vedere.models.sources import language_model, origin
from vedere.text.tokenizer import Tokenizer

SINGLY = ", singly"


def python_reference() -> str:
    """About 465,000 characters, in the order of their titles."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def windows(text: str, tokenizer: Tokenizer, tokens: int, length: int) -> list[Tensor]:
    """Whole windows of ``length`` ids, spread evenly over the text."""
    ids = torch.tensor(tokenizer.encode(text))
    every = list(ids.split(length))[:-1]
    count = min(len(every), max(1, tokens // length))
    return [every[number * len(every) // count] for number in range(count)]


def shuffled(model: Decoder) -> Decoder:
    """The same function with every group of inputs mixed anew."""
    config, generator = model.config, torch.Generator().manual_seed(0)

    def order(size: int) -> Tensor:
        return torch.randperm(size, generator=generator)

    model = copy.deepcopy(model)
    stream = order(config.hidden_size)
    tables = [model.embed.weight, model.norm.weight]
    if not config.tied_head:
        tables.append(model.head.get_parameter("weight"))
    for layer in model.layers:
        qkv, out = (layer.get_submodule(f"attention.text.{name}").get_parameter("weight") for name in ("qkv", "out"))
        gate_up, down = (
            layer.get_submodule(f"ffn.text.{name}").get_parameter("weight") for name in ("gate_up", "down")
        )
        inner = order(config.ffn_size)
        gate_up.data = gate_up.data[torch.cat([inner, inner + config.ffn_size])]
        down.data = down.data[:, inner]
        value_rows, out_columns = torch.arange(len(qkv)), torch.arange(out.shape[1])
        group = config.heads // config.kv_heads
        for head in range(config.kv_heads):
            within = order(config.head_dim)
            start = (config.heads + config.kv_heads + head) * config.head_dim
            value_rows[start : start + config.head_dim] = start + within
            for query in range(head * group, (head + 1) * group):
                start = query * config.head_dim
                out_columns[start : start + config.head_dim] = start + within
        qkv.data, out.data = qkv.data[value_rows], out.data[:, out_columns][stream]
        down.data = down.data[stream]
        tables += [
            qkv,
            gate_up,
            *(layer.get_submodule(name).get_parameter("weight") for name in ("attention_norm", "ffn_norm")),
        ]
    for table in tables:
        table.data = table.data[..., stream].contiguous()
    return model


@torch.inference_mode()
def logits(model: Decoder, ids: Tensor) -> Tensor:
    """Float32 logits of a window, ``[T, V]``."""
    hidden = model(model.embed(ids), torch.arange(len(ids)), [0, len(ids)])
    return model.logits(hidden)


@torch.inference_mode()
def singly(model: Decoder, ids: Tensor) -> Tensor:
    """The same, fed a token at a time as an answer is, through the products of few rows."""
    cache, step = Cache(model.config, dtype=model.embed.weight.dtype, capacity=len(ids)), token_step(model)
    rows = []
    for place in range(len(ids)):
        window = cache.window(0, [1])
        rows.append(model.logits(step(ids[place : place + 1], torch.tensor([place]), window, None)))
        cache.commit(window)
    return torch.cat(rows)


def losses(logits_TV: Tensor, ids: Tensor) -> Tensor:
    """Cross-entropy of every token but the first, in nats."""
    return torch.nn.functional.cross_entropy(logits_TV[:-1], ids[1:], reduction="none")


def measure(models: dict[str, Decoder], texts: list[Tensor], reference: str) -> dict[str, dict[str, float]]:
    """Perplexity of each model, and the distance of its logits to the reference's."""
    sums: dict[str, dict[str, float]] = {name: {} for name in models}

    def add(name: str, **values: float) -> None:
        for key, value in values.items():
            sums[name][key] = (
                max(sums[name].get(key, 0.0), value) if key == "largest" else sums[name].get(key, 0.0) + value
            )

    for number, ids in enumerate(texts):
        right = logits(models[reference], ids)
        best, spread = right.argmax(1), right.log_softmax(1)
        for name, model in models.items():
            found = right if name == reference else (singly if name.endswith(SINGLY) else logits)(model, ids)
            difference = found - right
            add(
                name,
                loss=float(losses(found, ids).double().sum()),
                tokens=len(ids) - 1,
                mean=float(difference.abs().double().mean()),
                largest=float(difference.abs().max()),
                relative=float(difference.norm() / right.norm()),
                divergence=float((spread.exp() * (spread - found.log_softmax(1))).sum(1).mean()),
                same=float((found.argmax(1) == best).double().mean()),
            )
        print(f"  window {number + 1} of {len(texts)}", end="\r", flush=True)
    result = {}
    for name, found in sums.items():
        result[name] = {
            "perplexity": math.exp(found["loss"] / found["tokens"]),
            "mean_logit_error": found["mean"] / len(texts),
            "max_logit_error": found["largest"],
            "relative_logit_error": found["relative"] / len(texts),
            "kl_divergence": found["divergence"] / len(texts),
            "same_likeliest_token": found["same"] / len(texts),
        }
    return result


def contenders(folder: Path) -> Iterator[tuple[str, Callable[[], Decoder]]]:
    """How each model is made; all from the same numbers."""
    exact = load_model(folder, torch.float32)
    assert isinstance(exact, Decoder)
    mixed = shuffled(exact)
    yield "float32", lambda: exact
    for base, suffix in ((exact, ""), (mixed, ", shuffled")):
        for form in ("bf16", "int8", "int4"):
            yield form + suffix, lambda b=base, f=form: pack_weights(copy.deepcopy(b).to(torch.bfloat16), f)  # type: ignore[misc, arg-type, return-value]
    for form in ("bf16-single", "int8", "int4"):
        yield form + SINGLY, lambda f=form: pack_weights(copy.deepcopy(exact).to(torch.bfloat16), f)  # type: ignore[misc, arg-type, return-value]
    yield "float32, shuffled", lambda: mixed


def main() -> None:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16384)
    parser.add_argument("--window", type=int, default=512)
    parser.add_argument("--text", type=Path, nargs="*", default=[])
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folder = language_model()
    tokenizer = Tokenizer.load(folder)
    models = {name: make().eval() for name, make in contenders(folder)}
    ids = torch.arange(100, 200)
    torch.testing.assert_close(
        logits(models.pop("float32, shuffled"), ids), logits(models["float32"], ids), rtol=1e-3, atol=1e-3
    )
    texts = {"python_reference": python_reference()}
    texts |= {path.stem: path.read_text(encoding="utf-8") for path in options.text}
    result: dict[str, Any] = {"model": origin(folder), "window": options.window, "texts": {}}
    for name, text in texts.items():
        parts = windows(text, tokenizer, options.tokens, options.window)
        rows = measure(models, parts, "float32")
        print(f"{name}: {len(parts)} windows of {options.window} tokens")
        print(f"{'':19} perplexity  mean/max logit error  relative      KL  same token")
        for form, row in rows.items():
            print(
                f"{form:19} {row['perplexity']:10.3f}  {row['mean_logit_error']:9.4f} / {row['max_logit_error']:6.3f}"
                f"  {row['relative_logit_error']:9.2%}  {row['kl_divergence']:.4f}  {row['same_likeliest_token']:10.1%}"
            )
        result["texts"][name] = {"windows": len(parts), "forms": rows}
    store("quantization_quality", result)


if __name__ == "__main__":
    main()
