"""A 4K page through XComposer2-4KHD at its real widths: tokens, seconds and peak memory against what ``vedere plan`` says.

    python benchmarks/hd_page.py [--device cuda] [--layers 32] [--hd-num 55] [--size 672x18480] [--dtype bf16] [--limit 0.1]

Random weights, made on the device; as many layers of language model and tower as ``--layers`` and ``--tower-layers`` say, all
else as released. Without ``--layers`` it takes as many as 80 % of the free memory holds. The pages are drawn text: 336 x 18480
px, one column of 55 views, the shape of most tokens (8,737), and 3840 x 1600 px (8,137 tokens).

Peak memory: on CUDA the allocator's own peak; on a CPU weights, cache, and the largest sum of living storages that operations
made. There every tensor is looked at as well: a square one at least as long as the prompt would be a mask of prompt x prompt,
and there must be none (the engine feeds chunks of 512 tokens). Exit status 1 if there is one, or if a peak is further
than ``--limit`` from the plan.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from typing import Any

import numpy as np
import torch
from harness import machine, store
from PIL import Image, ImageDraw
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vedere.infer.cache import Cache
from vedere.infer.engine import Engine, Finished, Request
from vedere.infer.sampling import SamplingParams
from vedere.models.footprint import dtype_of, footprint
from vedere.models.releases import RELEASES
from vedere.models.xcomposer2 import XComposer2, XComposer2Config
from vedere.plan import HDPolicy, plan_media
from vedere.vision.hd import hd_tiles

NEW_TOKENS = 4


class Living(TorchDispatchMode):
    """Largest sum of the living storages that operations made, and how many were squares of ``tokens`` or more."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = self.squares = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        self.alive = {place: entry for place, entry in self.alive.items() if not entry[0].expired()}
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                shape = tensor.shape[-2:]
                self.squares += len(shape) == 2 and shape[0] == shape[1] >= self.tokens
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in inputs and storage.nbytes():
                    self.alive[storage.data_ptr()] = (StorageWeakRef(storage), storage.nbytes())
        self.peak = max(self.peak, sum(size for _, size in self.alive.values()))
        return out


def page(width: int, height: int) -> Image.Image:
    """A page of drawn lines of text."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for number in range(height // 40):
        draw.text((20, 40 * number + 10), f"line {number}: " + "the quick brown fox jumps " * (width // 160), "black")
    return image


def shape(name: str, layers: int, tower_layers: int, tiny: bool) -> XComposer2Config:
    """The released shape with fewer layers; ``tiny``: narrow as well, for tests."""
    model = RELEASES[name].model
    assert isinstance(model, XComposer2Config)
    tower, decoder = model.vision, model.decoder
    if tiny:
        patches = dataclasses.replace(tower.patches, width=64, tile=56)
        tower = dataclasses.replace(tower, patches=patches, heads=4, ffn_size=256)
        narrow = {"hidden_size": 256, "ffn_size": 896, "heads": 4, "kv_heads": 1, "head_dim": 64, "vocab_size": 2000}
        decoder = dataclasses.replace(decoder, **narrow, partial_rank=16, partial_alpha=16.0)
    return dataclasses.replace(
        model,
        vision=dataclasses.replace(tower, layers=tower_layers),
        decoder=dataclasses.replace(decoder, layers=layers),
    )


def fitting(name: str, dtype: torch.dtype, device: str, prompt: int, views: int) -> int:
    """Layers that 80 % of the free memory holds."""
    if device == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
        assert found is not None
        free = int(found[1]) * 1024
    for layers in range(32, 0, -1):
        total = footprint(
            shape(name, layers, 24, False), dtype=dtype, prompt=prompt, new_tokens=NEW_TOKENS, tiles=views
        ).total
        if total < 0.8 * free:
            return layers
    sys.exit("not even one layer fits into the free memory")


def measure(config: XComposer2Config, size: tuple[int, int], policy: HDPolicy, dtype: torch.dtype, device: str) -> Any:
    """One page through the engine."""
    plan = plan_media(*size, policy)
    torch.manual_seed(0)
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = XComposer2(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    types = np.zeros(plan.tokens + 20, dtype=np.uint8)
    place = 1
    for kind, length in plan.spans:
        types[place : place + length] = int(kind)
        place += length
    request = Request(
        ids=np.zeros(len(types), dtype=np.int64),
        span_types=types,
        pixels=hd_tiles(page(*size), plan),
        statistics="clip",
        sampling=SamplingParams(max_new_tokens=NEW_TOKENS),
    )
    weights = sum(parameter.nbytes for parameter in model.parameters())
    told = footprint(config, dtype=dtype, prompt=len(types), new_tokens=NEW_TOKENS, tiles=len(plan.tiles))
    engine = Engine(model, max_batch=1)
    engine._cache = Cache(config.decoder, dtype=dtype, device=device, capacity=len(types) + NEW_TOKENS + 1)
    kv = told.kv_per_token * (len(types) + NEW_TOKENS + 1)
    living = Living(len(types))
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    if device == "cuda":
        events = list(engine.generate([request]))
        peak = torch.cuda.max_memory_allocated()
    else:
        with living:
            events = list(engine.generate([request]))
        peak = weights + kv + living.peak
    seconds = time.perf_counter() - start
    finished = events[-1]
    assert isinstance(finished, Finished)
    return {
        "size": list(size),
        "grid": list(plan.grid),
        "views": len(plan.tiles),
        "media_tokens": plan.tokens,
        "prompt_tokens": len(types),
        "layers": config.decoder.layers,
        "tower_layers": config.vision.layers,
        "dtype": str(dtype),
        "bytes": {"peak": peak, "planned": told.total, "weights": weights, "kv": kv},
        "squares": None if device == "cuda" else living.squares,
        "ratio": peak / told.total,
        "prefill_seconds": finished.timings.prefill,
        "seconds": seconds,
    }


def main() -> int:
    """Measures, prints, stores."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="internlm-xcomposer2-4khd-7b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--tower-layers", type=int, default=24)
    parser.add_argument("--hd-num", type=int, default=55)
    parser.add_argument("--size", nargs="+", default=["336x18480", "3840x1600"])
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--limit", type=float, default=0.1)
    parser.add_argument("--tiny", action="store_true", help="narrow model with tiles of 56 px, for tests")
    parser.add_argument("--json", action="store_true", help="print only, store nothing")
    options = parser.parse_args()
    dtype = dtype_of(options.dtype)
    sizes = [(int(width), int(height)) for width, _, height in (text.partition("x") for text in options.size)]
    policy = HDPolicy(tile=56 if options.tiny else 336, limit=options.hd_num)
    plans = [plan_media(*size, policy) for size in sizes]
    prompt, views = max(plan.tokens for plan in plans) + 20, max(len(plan.tiles) for plan in plans)
    layers = options.layers or fitting(options.model, dtype, options.device, prompt, views)
    config = shape(options.model, layers, options.tower_layers, options.tiny)
    pages = [measure(config, size, policy, dtype, options.device) for size in sizes]
    result = {"machine": machine(), "model": options.model, "pages": pages}
    print(json.dumps(result, indent=None if options.json else 2))
    if not options.json:
        store("hd_page", result)
    return int(any(abs(one["ratio"] - 1) > options.limit or one["squares"] for one in pages))


if __name__ == "__main__":
    sys.exit(main())
