"""What a monolithic model saves: Mono-InternVL-2B's shape against InternVL2-2B's, and routing by index against a dense blend.

Both models have the language model of InternLM2-1.8B, random weights in bfloat16 and the same prompt: 256 text tokens and 3, 7
or 15 tiles. The modular one sends every tile through InternViT-300M first (Mono-InternVL, arXiv 2410.08202, compares the same
two). Printed beside the measured time to the first token is the share that can be saved by FLOP alone, which is all that there
is to gain on a CPU: decoding runs the same matrices in both. The paper's 59 to 67 % belong to a GPU engine at a concurrency
of 16.

The second table feeds one feed-forward layer of that shape with 0, 50 and 90 % visual tokens: each token through its expert
only, against both experts on every token and a blend by the mask, as the released code does it. Results are compared before
anything is timed.

    python benchmarks/monolithic.py [--threads 2] [--rounds 3] [--new 16] [--tokens 1024 2048 4096] [--only models routing]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from harness import RESULTS, interleave, ratios, store
from prompt_flops import first_token_flops

from vedere.infer.allocator import keep_freed_memory
from vedere.infer.engine import Engine, Finished, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.experts import FeedForward, SpanRouter
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVL, InternVLConfig
from vedere.models.layers import SwiGLU
from vedere.models.mono_internvl import MonoInternVL, MonoInternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.quantized import pack_weights
from vedere.models.releases import MONO_INTERNVL_2B
from vedere.train.precision import matmul_limit

TEXT = 256
MONO, MODULAR = "Mono-InternVL-2B", "InternVL2-2B"


def shapes(tiny: bool = False) -> tuple[MonoInternVLConfig, InternVLConfig]:
    """The two models; ``tiny`` ones test the benchmark."""
    decoder, patches = MONO_INTERNVL_2B.decoder, PatchConfig(width=1024)
    tower = InternViTConfig(patches=patches)  # InternViT-300M
    if tiny:
        small = {"hidden_size": 32, "ffn_size": 48, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8}
        decoder, patches = replace(decoder, vocab_size=300, **small), PatchConfig(width=16, patch=7, tile=56)
        tower = InternViTConfig(patches=patches, layers=2, heads=2, ffn_size=32)
    mono = replace(MONO_INTERNVL_2B, vision=patches, decoder=decoder)
    return mono, InternVLConfig(vision=tower, decoder=replace(decoder, visual_ffn=False))


def models(device: Any, tiny: bool) -> dict[str, Callable[[], Any]]:
    """Makers of the two models with random weights in bfloat16."""
    mono, modular = shapes(tiny)

    def build(cls: Any, config: Any) -> Any:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(device):  # weights are drawn where they stay: 6 GB never pass through main memory
                return cls(config).eval()
        finally:
            torch.set_default_dtype(before)

    return {MONO: lambda: build(MonoInternVL, mono), MODULAR: lambda: build(InternVL, modular)}


def ask(engines: dict[str, Any], total: int, text: int, new: int, rounds: int) -> dict[str, Any]:
    """One prompt of ``total`` tokens to each model in turn, ``new`` tokens of answer."""
    patches = next(iter(engines.values())).model.patches
    tiles, rest = divmod(total - text, patches.tokens_per_tile)
    assert rest == 0, f"{total - text} visual tokens are no whole tiles of {patches.tokens_per_tile}"
    types = torch.zeros(total, dtype=torch.uint8)
    types[text // 2 : text // 2 + total - text] = 1
    request = Request(
        ids=torch.randint(20, 290, (total,)),
        span_types=types,
        pixels=torch.randint(0, 256, (tiles, 3, patches.tile, patches.tile), dtype=torch.uint8),
        sampling=SamplingParams(max_new_tokens=new),
    )
    runs: dict[str, dict[str, list[float]]] = {n: {"first_token": [], "tokens_per_second": []} for n in engines}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            (done,) = [event for event in engine.generate([request]) if isinstance(event, Finished)]
            assert len(done.ids) == new, f"{name} stopped after {len(done.ids)} tokens"
            assert all(map(torch.isfinite, torch.tensor(done.logprobs))), f"{name} gives log-probabilities like NaN"
            if number:  # the first warms up
                runs[name]["first_token"].append(done.timings.first_token)
                runs[name]["tokens_per_second"].append(done.timings.tokens_per_second)
    medians = {name: {key: statistics.median(values) for key, values in run.items()} for name, run in runs.items()}
    mono, modular = runs.values()
    gain = {
        "first_token": statistics.median(
            b / a for a, b in zip(mono["first_token"], modular["first_token"], strict=True)
        ),
        "decoding": statistics.median(
            a / b for a, b in zip(mono["tokens_per_second"], modular["tokens_per_second"], strict=True)
        ),
    }
    return {"tiles": tiles, "text": text, "new": new, "medians": medians, "monolithic_is_faster_by": gain, "runs": runs}


def compare_models(lengths: list[int], new: int, rounds: int, tiny: bool = False) -> dict[str, Any]:
    """Time to the first token and decoding speed on this CPU, beside what FLOP allow; prints and returns it."""
    device = torch.device("cpu")
    keep_freed_memory()  # allocator and form of the weights as `vedere.load` sets them
    engines = {
        name: Engine(pack_weights(make(), "stored" if tiny else "bf16"), max_batch=1, chunk=1 << 14)
        for name, make in models(device, tiny).items()
    }
    mono, modular = shapes(tiny)
    limit = matmul_limit(device, torch.bfloat16, mono.decoder.hidden_size, 2 * mono.decoder.ffn_size)
    found: dict[str, Any] = {"matmul_limit_flops": limit}
    text = 8 if tiny else TEXT
    for total in lengths:
        torch.manual_seed(0)
        result = ask(engines, total, text, new, rounds)
        flops = {
            name: first_token_flops(shape, total, result["tiles"]) for name, shape in ((MONO, mono), (MODULAR, modular))
        }
        bound = 1 - flops[MONO] / flops[MODULAR]
        saved = 1 - 1 / result["monolithic_is_faster_by"]["first_token"]
        found[str(total)] = result | {"flops": flops, "saving_by_flops": bound, "saving": saved}
        for name, median in result["medians"].items():
            share = flops[name] / median["first_token"] / limit
            print(
                f"{total} tokens {name:17} first token {median['first_token']:6.2f} s ({share:.0%} of the matmul limit), "
                f"{median['tokens_per_second']:5.1f} tokens/s"
            )
        print(
            f"{total} tokens saved {saved:.1%} of the time to the first token; FLOP allow {bound:.1%}: "
            f"{saved / bound:.0%} of the bound; decoding {result['monolithic_is_faster_by']['decoding']:.2f} x"
        )
    return found


def compare_routing(rounds: int, tokens: int = 1024, width: int = 2048, hidden: int = 8192) -> dict[str, Any]:
    """One feed-forward layer routed and blended; prints and returns it."""
    torch.manual_seed(0)
    experts = FeedForward(SwiGLU(width, hidden), SwiGLU(width, hidden)).bfloat16()
    x = torch.randn(tokens, width, dtype=torch.bfloat16)
    found = {}
    for share in (0.0, 0.5, 0.9):
        types = torch.zeros(tokens, dtype=torch.uint8)
        types[torch.randperm(tokens)[: round(share * tokens)]] = 1
        router = SpanRouter(types, tokens)
        mask = types[:, None].to(x.dtype)

        def routed(router: SpanRouter = router) -> torch.Tensor:
            return router.unsort(experts(router.sort(x), router))

        def blended(mask: torch.Tensor = mask) -> torch.Tensor:
            return experts.text(x) * (1 - mask) + experts.visual(x) * mask

        with torch.inference_mode():
            error = float((routed() - blended()).abs().max() / blended().abs().max())
            assert error < 2e-2, f"routing computes something else: {error:.1e}"
            seconds = interleave({"dense blend": blended, "routed": routed}, rounds)
        gain = ratios(seconds, "dense blend")["routed"]
        found[f"{share:.0%}"] = {"error": error, "seconds": seconds, "ratio": gain}
        print(f"{share:4.0%} visual tokens: routed {gain:.2f} x the dense blend (relative difference {error:.1e})")
    return found


def draw(result: dict[str, Any]) -> None:
    """``results/monolithic_cpu.png``: saved share of the time to the first token beside its bound."""
    import matplotlib.pyplot as plt

    lengths = [name for name in result if name.isdigit()]
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for shift, key, label in ((-0.2, "saving_by_flops", "bound by FLOP"), (0.2, "saving", "measured")):
        places = [number + shift for number in range(len(lengths))]
        bars = axes.bar(places, [100 * result[name][key] for name in lengths], 0.38, label=label)
        axes.bar_label(bars, fmt="%.0f %%")
    axes.set_xticks(range(len(lengths)), [f"{name} tokens" for name in lengths])
    axes.set_ylabel("saved until the first token, %")
    axes.legend(loc="lower right")
    axes.set_title(f"{MONO} against {MODULAR}, CPU", fontsize=10)
    figure.savefig(RESULTS / "monolithic_cpu.png", dpi=120)


def main() -> None:
    """Compares, times, stores, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new", type=int, default=16)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--only", nargs="+", choices=["models", "routing"], default=["routing", "models"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result: dict[str, Any] = {}
    if "routing" in options.only:
        result["routing"] = compare_routing(2 * options.rounds + 1)
    if "models" in options.only:
        result |= compare_models(options.tokens, options.new, options.rounds)
        draw(result)
    store("monolithic_cpu", result)


if __name__ == "__main__":
    main()
