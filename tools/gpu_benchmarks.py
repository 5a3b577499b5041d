"""What there is to measure on a GPU, with one command and without a network.

    python tools/gpu_benchmarks.py OUT [--minutes 8] [--only training packing first_token] [--device auto] [--tiny]

* ``training``     `benchmarks/train_throughput.py`: a micro-batch of vedere-mini's shape, each way against a padded loop;
* ``packing``      one attention layer over packs of short, mixed and long documents: ``flex`` and ``sdpa`` against
                   ``explicit``, results (and on CUDA gradients) compared before anything is timed;
* ``first_token``  Mono-InternVL-2B's shape against InternVL2-2B's, random weights in bfloat16: seconds to the first token and
                   decoding speed at 1,024, 2,048 and 4,096 prompt tokens, 256 of them text and the rest pictures
                   (Mono-InternVL, arXiv 2410.08202, compares these two in the same way).

Each part runs in a process of its own and writes ``OUT/PART.json`` after every measurement. The minutes are shared: a part gets
what is left divided by the parts left, begins no measurement after that, and is ended a minute later, so a part that fails or
hangs costs the others nothing. ``--tiny`` shrinks everything to seconds on a CPU and tests the tool, not a machine. Times are
medians of interleaved rounds; raw ones are kept. The status is 1 if any part is not complete.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
GRACE = 60.0  # seconds for the measurement in progress when a part's time is over
TEXT = 256


class Report:
    """The results of a part, kept on disk after every measurement.

    Args:
        path: JSON file.
        seconds: Time of the part; after it `measure` begins nothing more.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.end = path, time.monotonic() + seconds
        self.facts: dict[str, Any] = {"complete": False, "results": {}, "left_out": []}

    def measure(self, name: str, call: Callable[[], dict[str, Any]]) -> None:
        """Runs one measurement if there is time; what it returns is kept under ``name``."""
        if time.monotonic() > self.end:
            self.facts["left_out"].append(name)
        else:
            self.facts["results"][name] = call()
            print(f"{name}: done, {max(0.0, self.end - time.monotonic()):.0f} s left", flush=True)
        self.write()

    def write(self) -> None:
        """Puts the file in place in one step."""
        from harness import machine

        from vedere.atomic import write_atomically
        from vedere.models.shards import json_writer

        write_atomically(self.path, json_writer({"machine": machine(), **self.facts}))


def training(report: Report, device: Any, tiny: bool) -> None:
    """Training speed of vedere-mini's shape."""
    import torch
    import train_throughput as throughput

    from vedere.train.precision import training_dtype

    dtype = torch.float32 if tiny else training_dtype("auto", device)
    small = {
        "hidden_size": 32,
        "ffn_size": 48,
        "layers": 2,
        "heads": 4,
        "kv_heads": 2,
        "head_dim": 8,
        "vocab_size": 300,
    }
    shape = small if tiny else {}
    for count in (3,) if tiny else (54, 432):
        model = throughput.mini_shape(dtype, device, **shape)
        batch = throughput.documents(count, dtype, device, model.decoder.config.vocab_size)
        report.measure(f"{count} documents", lambda m=model, b=batch: throughput.compare(m, b, 1 if tiny else 5))


def packs(tiny: bool) -> dict[str, list[int]]:
    """Lengths of the documents of each pack."""
    if tiny:
        return {"short": [9, 30, 21], "mixed": [5, 140, 60]}
    mixed = [64, 1900, 300, 700, 128, 1100, 2048, 40, 500, 1412]
    return {"short": [34 + (7 * number) % 9 for number in range(216)], "mixed": mixed, "long": [4096, 4096]}


def packing(report: Report, device: Any, tiny: bool) -> None:
    """The backends of packed attention."""
    import torch

    heads, kv_heads, width = (4, 2, 16) if tiny else (16, 8, 128)
    for name, lengths in packs(tiny).items():
        borders = [0, *itertools.accumulate(lengths)]
        torch.manual_seed(0)
        qkv = torch.randn(borders[-1], heads + 2 * kv_heads, width, device=device)
        report.measure(name, lambda b=borders, x=qkv: compare_backends(b, x, heads, kv_heads, 1 if tiny else 7))


def compare_backends(borders: list[int], qkv: Any, heads: int, kv_heads: int, rounds: int) -> dict[str, Any]:
    """Equality in float32 (and bfloat16, loosely), then times; with gradients on CUDA, forward only on a CPU."""
    import torch
    from harness import interleave, ratios

    from vedere.models.attention import AttentionPass, Backend
    from vedere.models.experts import SpanRouter

    learning = qkv.device.type == "cuda"
    router = SpanRouter(None, len(qkv))
    backends: tuple[Backend, ...] = ("explicit", "sdpa", "flex")

    def run(backend: Backend, x: Any) -> list[Any]:
        with torch.set_grad_enabled(learning):
            x = x.detach().requires_grad_(learning)
            step = AttentionPass(borders, router, x.device, x.shape[-1], backend)  # its mask is part of the cost
            out = step.attend(0, *x.split([heads, kv_heads, kv_heads], dim=1))
            return [out, *torch.autograd.grad(out.square().sum(), x)] if learning else [out]

    result: dict[str, Any] = {"tokens": len(qkv), "documents": len(borders) - 1, "gradients": learning}
    for dtype, tolerance in ((torch.float32, 2e-3), (torch.bfloat16, 4e-2)):
        x = qkv.to(dtype)
        want = run("explicit", x)
        for backend in backends[1:]:
            pairs = zip(run(backend, x), want, strict=True)
            error = max(float((a.float() - b.float()).norm() / b.float().norm()) for a, b in pairs)
            result[f"relative difference {backend} {str(dtype).removeprefix('torch.')}"] = error
            assert error < tolerance, f"{backend} computes something else in {dtype}: {error}"
    x = qkv.to(torch.bfloat16)
    seconds = interleave({name: lambda b=name: run(b, x) for name in backends}, rounds)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return result | {"median_seconds": medians, "ratio_to_explicit": ratios(seconds, "explicit"), "seconds": seconds}


def models(device: Any, tiny: bool) -> dict[str, Callable[[], Any]]:
    """Makers of the two models with random weights in bfloat16, both with the language model of InternLM2-1.8B."""
    import torch

    from vedere.models.intern_vit import InternViTConfig
    from vedere.models.internvl import InternVL, InternVLConfig
    from vedere.models.mono_internvl import MonoInternVL
    from vedere.models.patches import PatchConfig
    from vedere.models.releases import MONO_INTERNVL_2B

    decoder, patches = MONO_INTERNVL_2B.decoder, PatchConfig(width=1024)
    tower = InternViTConfig(patches=patches)  # InternViT-300M
    if tiny:
        small = {"hidden_size": 32, "ffn_size": 48, "layers": 2, "heads": 4, "kv_heads": 2, "head_dim": 8}
        decoder, patches = replace(decoder, vocab_size=300, **small), PatchConfig(width=16, patch=7, tile=56)
        tower = InternViTConfig(patches=patches, layers=2, heads=2, ffn_size=32)
    mono = replace(MONO_INTERNVL_2B, vision=patches, decoder=decoder)
    modular = InternVLConfig(vision=tower, decoder=replace(decoder, visual_ffn=False))

    def build(cls: Any, config: Any) -> Any:
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device(device):  # weights are drawn where they stay: 6 GB never pass through main memory
                return cls(config).eval()
        finally:
            torch.set_default_dtype(before)

    return {"Mono-InternVL-2B": lambda: build(MonoInternVL, mono), "InternVL2-2B": lambda: build(InternVL, modular)}


def first_token(report: Report, device: Any, tiny: bool) -> None:
    """Seconds to the first token and decoding speed, one monolithic and one modular model side by side."""
    import torch

    from vedere.infer.engine import Engine

    whole = 1 << 14  # a prompt in one step
    built = {name: make() for name, make in models(device, tiny).items()}
    engines = {name: Engine(model, max_batch=1, chunk=whole) for name, model in built.items()}
    text = 8 if tiny else TEXT
    for total in (24, 40) if tiny else (1024, 2048, 4096):
        torch.manual_seed(0)
        report.measure(f"{total} tokens", lambda n=total: ask(engines, n, text, 4 if tiny else 64, 1 if tiny else 5))


def ask(engines: dict[str, Any], total: int, text: int, new: int, rounds: int) -> dict[str, Any]:
    """One prompt of ``total`` tokens to each model in turn, ``new`` tokens of answer."""
    import torch

    from vedere.infer.engine import Finished, Request
    from vedere.infer.sampling import SamplingParams

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


PARTS: dict[str, Callable[[Report, Any, bool], None]] = {
    "training": training,
    "packing": packing,
    "first_token": first_token,
}


def run_part(name: str, out: Path, seconds: float, device: str, tiny: bool) -> int:
    """One part in this process."""
    sys.path.insert(0, str(BENCHMARKS))
    from vedere.models.devices import choose_device

    report = Report(out / f"{name}.json", seconds)
    try:
        PARTS[name](report, choose_device(device), tiny)
        report.facts["complete"] = not report.facts["left_out"]
    except Exception:
        report.facts["error"] = traceback.format_exc()
        traceback.print_exc()
    report.write()
    return 0 if report.facts["complete"] else 1


def main(argv: list[str] | None = None) -> int:
    """Reads the command line, runs parts one after the other; 0 if all are complete."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        return run_part(options.part, options.out, 60 * options.minutes, options.device, options.tiny)
    end = time.monotonic() + 60 * options.minutes
    failed = []
    for number, name in enumerate(options.only):
        (options.out / f"{name}.json").unlink(missing_ok=True)  # nothing of an earlier run is taken for this one's
        seconds = max(0.0, end - time.monotonic()) / (len(options.only) - number)
        command = [sys.executable, __file__, str(options.out), "--part", name, "--minutes", str(seconds / 60)]
        command += ["--device", options.device, *(["--tiny"] if options.tiny else [])]
        print(f"{name}: {seconds:.0f} s", flush=True)
        try:
            done = subprocess.run(command, timeout=seconds + GRACE, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            done = False
            print(f"{name}: ended {GRACE:.0f} s after its time", flush=True)
        if not done:
            failed.append(name)
    print(f"not complete: {', '.join(failed)}; see {options.out}" if failed else f"complete: {options.out}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
