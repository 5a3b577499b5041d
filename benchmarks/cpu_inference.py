"""Answering on a CPU: vedere against transformers' InternVL on identical random weights of InternVL3-1B's shape, in bfloat16.

    python benchmarks/cpu_inference.py [--parts import load preprocess first decode] [--threads 2 1] [--weights DIR]
                                       [--rounds 5] [--name cpu_inference] [--contenders stored bf16 bf16-single int8 int4]

Contenders get the same weights (`internvl3_peer.py`); their logits are compared before anything is timed. vedere is measured
through its engine (continuous batching, log-probabilities and all); the peer through its bare ``forward`` with a cache and the
head on the last position only, which is less than its ``generate`` does. Parts, for each number of threads:

* ``import``      fresh processes that import torch, vedere on top of it, or transformers;
* ``load``        fresh processes: load, first answer, peak memory after one short answer;
* ``preprocess``  pictures in memory to normalised tiles; the pixels are compared bit by bit;
* ``first``       first token of a prompt with 1 and 7 tiles and 50 text tokens, and how fast matmuls alone could be, which
                  bounds every ratio;
* ``decode``      milliseconds a token after that, for each form of the weights, and the machine's own limit: the speed of
                  reading a buffer of the size of what a token reads.

Medians of the ratios of interleaved rounds. Each part is added to ``results/NAME.json``, from which ``results/NAME.png`` is
drawn.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import RESULTS, interleave, ratios, store
from internvl3_peer import IMAGE_ID, SHAPE, peer_model, random_model, write_both
from PIL import Image
from prompt_flops import first_token_flops

from vedere.infer.allocator import keep_freed_memory
from vedere.infer.engine import Engine, Request, Token
from vedere.infer.sampling import SamplingParams
from vedere.models.internvl import InternVL
from vedere.plan import SpanKind, TilingPolicy, plan_media
from vedere.train.precision import matmul_limit
from vedere.vision.pixels import media_tiles, normalise

PICTURES = {"800x600": (800, 600), "1080p": (1920, 1080), "4K": (3840, 2160)}
TEXT = 50


def prompt(tiles: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and span types: 20 text tokens, the pictures, 30 text tokens."""
    generator = torch.Generator().manual_seed(tiles)
    text = torch.randint(100, 150000, (TEXT,), generator=generator)
    image = torch.full((tiles * SHAPE.vision.patches.tokens_per_tile,), IMAGE_ID)
    ids = torch.cat([text[:20], image, text[20:]])
    return ids, (ids == IMAGE_ID).to(torch.uint8) * int(SpanKind.VISUAL)


def request(tiles: int, new_tokens: int) -> Request:
    """A prompt for vedere's engine, its tiles as 8-bit pixels."""
    ids, types = prompt(tiles)
    rng = np.random.default_rng(tiles)
    pixels = rng.integers(0, 256, (tiles, 3, 448, 448), dtype=np.uint8) if tiles else None
    return Request(ids=ids, span_types=types, pixels=pixels, sampling=SamplingParams(max_new_tokens=new_tokens))


class Peer:
    """transformers' model, driven by the shortest loop that it allows."""

    def __init__(self, model: Any) -> None:
        self.model = model

    @torch.inference_mode()
    def answer(self, tiles: int, new_tokens: int) -> tuple[list[int], list[float], torch.Tensor]:
        """Greedy token ids, the time of each since the call, and the logits of the first."""
        from transformers import DynamicCache

        keep_freed_memory(False)  # vedere sets the allocator when it loads a model; the peer gets the system's own
        begun = time.perf_counter()
        asked = request(tiles, new_tokens)
        pixels = None
        if asked.pixels is not None:
            pixels = normalise(torch.from_numpy(asked.pixels), "imagenet").to(torch.bfloat16)
        cache = DynamicCache(config=self.model.config.get_text_config())
        ids = asked.ids[None]
        out = self.model(input_ids=ids, pixel_values=pixels, past_key_values=cache, use_cache=True, logits_to_keep=1)
        first = out.logits[0, -1]
        tokens, times = [int(first.argmax())], [time.perf_counter() - begun]
        while len(tokens) < new_tokens:
            last = torch.tensor([[tokens[-1]]])
            out = self.model(input_ids=last, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens.append(int(out.logits[0, -1].argmax()))
            times.append(time.perf_counter() - begun)
        return tokens, times, first.float()


class Own:
    """vedere's engine with a form of the weights."""

    def __init__(self, model: InternVL, weights: str) -> None:
        self.engine = Engine(packed(model, weights), max_batch=1)

    def answer(self, tiles: int, new_tokens: int) -> tuple[list[int], list[float]]:
        """Greedy token ids and the time of each since the call."""
        keep_freed_memory()
        begun = time.perf_counter()
        tokens, times = [], []
        for event in self.engine.generate([request(tiles, new_tokens)]):
            if isinstance(event, Token):
                tokens.append(event.id)
                times.append(time.perf_counter() - begun)
        return tokens, times

    def weights_of_a_token(self) -> list[torch.Tensor]:
        """Those of the layers' maps and of the head."""
        decoder = self.engine.decoder
        return [p for name, p in decoder.named_parameters() if p.ndim == 2 and "embed" not in name]

    @torch.inference_mode()
    def first_logits(self, tiles: int) -> torch.Tensor:
        """Logits of the first new token."""
        model, asked = self.engine.model, request(tiles, 1)
        pixels = None if asked.pixels is None else normalise(torch.from_numpy(asked.pixels), "imagenet")
        ids, types = prompt(tiles)
        hidden = model(ids, torch.arange(len(ids)), [0, len(ids)], types, pixels)
        return model.decoder.logits(hidden[-1])


def packed(model: InternVL, weights: str) -> InternVL:
    """A model that shares every tensor with ``model`` but has its linear maps in another form."""
    import copy

    if weights == "stored":
        return model
    from vedere.models.quantized import pack_weights

    shared = {id(parameter): parameter for parameter in model.parameters()}
    return pack_weights(copy.deepcopy(model, shared), weights)


def compare(own: dict[str, Own], peer: Peer, tiles: int) -> dict[str, float]:
    """Relative distance of vedere's first logits to the peer's; what is not quantised must be within bfloat16's rounding."""
    theirs = peer.answer(tiles, 1)[2]
    errors = {name: float((each.first_logits(tiles) - theirs).norm() / theirs.norm()) for name, each in own.items()}
    print(
        f"{tiles} tiles: relative distance of the logits to the peer's: "
        + ", ".join(f"{n} {e:.1e}" for n, e in errors.items())
    )
    for name in ("stored", "bf16", "bf16-single"):
        assert errors.get(name, 0) < 5e-2, f"{name} computes something else"
    return errors


def memory_roof(weights: list[torch.Tensor]) -> float:
    """Most bytes a second at which the weights of a token were read, one after the other; best of 8 passes.

    The weights themselves and no other buffer: how fast memory is read depends on where it lies, by a factor of up to two on
    servers. A pass takes their largest number, as 64-bit integers, which is as fast as their sum.
    """
    words = [weight.view(-1).view(torch.int64) for weight in weights]
    best = 0.0
    for _ in range(8):
        begun = time.perf_counter()
        for each in words:
            each.max()
        best = max(best, 1 / (time.perf_counter() - begun))
    return best * sum(each.nbytes for each in words)


def bytes_per_token(bits: float = 16) -> float:
    """Weights that a decoded token reads: layers and head."""
    d = SHAPE.decoder
    layer = d.hidden_size * ((2 * d.heads + 2 * d.kv_heads) * d.head_dim + 3 * d.ffn_size)
    return (d.layers * layer + d.vocab_size * d.hidden_size) * bits / 8


def measure_first(models: dict[str, Any], rounds: int, tiles: int) -> dict[str, Any]:
    """Seconds to the first token."""
    seconds = interleave({name: lambda m=m: m.answer(tiles, 1) for name, m in models.items()}, rounds)
    gain = ratios(seconds, "transformers")
    d = SHAPE.decoder
    limit = matmul_limit(torch.device("cpu"), torch.bfloat16, d.hidden_size, 2 * d.ffn_size)
    least = first_token_flops(SHAPE, len(prompt(tiles)[0]), tiles) / limit
    bound = statistics.median(seconds["transformers"]) / least
    print(
        f"  {tiles} tiles: matmuls at {limit / 1e9:.0f} GFLOP/s take {least:.2f} s, so no ratio above {bound:.2f} can be"
    )
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"  first token, {tiles} tiles: {name:13} {middle:6.2f} s  {gain[name]:5.2f} x  {least / middle:4.0%} of the limit"
        )
    return {
        "seconds": seconds,
        "ratio_to_transformers": gain,
        "matmul_limit_flops": limit,
        "seconds_at_limit": least,
        "largest_possible_ratio": bound,
    }


def measure_decode(models: dict[str, Any], rounds: int, tokens: int = 24) -> dict[str, Any]:
    """Milliseconds a token after a prompt of one tile; a round is the median over its tokens.

    Every round measures the speed of memory too, which other programs on the machine change from minute to minute.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    roofs: list[float] = []
    for number in range(rounds + 1):
        if number:
            roofs.append(memory_roof(models["stored"].weights_of_a_token()))
        for name, model in models.items():
            ends = model.answer(1, tokens)[1]
            if number:
                times[name].append(1e3 * statistics.median(np.diff(ends)))
    gain = ratios(times, "transformers")
    roof = statistics.median(roofs)
    bits = {"stored": 16, "bf16": 16, "bf16-single": 16, "int8": 8, "int4": 5, "transformers": 16}
    share = {
        name: statistics.median(
            bytes_per_token(bits[name]) / fastest / (ms / 1e3) for fastest, ms in zip(roofs, each, strict=True)
        )
        for name, each in times.items()
    }
    print(f"  memory reads at {roof / 1e9:.1f} GB/s: {bytes_per_token() / roof * 1e3:.1f} ms a token in bf16")
    for name, each in times.items():
        print(
            f"  decode: {name:13} {statistics.median(each):6.2f} ms/token  {gain[name]:5.2f} x  {share[name]:4.0%} of the roof"
        )
    return {
        "ms_per_token": times,
        "ratio_to_transformers": gain,
        "roof_bytes_per_second": roofs,
        "share_of_roof": share,
    }


def original_pixels(picture: Image.Image, most: int) -> np.ndarray[Any, Any]:
    """The original code's steps, one by one: resize, crop, each tile to float, ``/ 255``, minus mean, by std."""
    plan = plan_media(*picture.size, TilingPolicy(max_tiles=most))
    whole = picture.resize(plan.resized, Image.Resampling.BICUBIC)
    out = []
    for tile in plan.tiles:
        part = (
            picture.resize((448, 448), Image.Resampling.BICUBIC) if tile.role == "thumbnail" else whole.crop(tile.box)
        )
        part = part.resize((448, 448), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(part)).permute(2, 0, 1).contiguous().float().div(255)
        mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
        out.append(values.sub(mean[:, None, None]).div(std[:, None, None]))
    return torch.stack(out).numpy()


def measure_preprocess(rounds: int) -> dict[str, Any]:
    """Pictures in memory to normalised tiles."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    imagenet = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    result = {}
    for name, size in PICTURES.items():
        noise = np.random.default_rng(0).integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
        for most in (1, 12):
            peer = GotOcr2ImageProcessorPil(
                crop_to_patches=True, min_patches=1, max_patches=most, size={"height": 448, "width": 448}, **imagenet
            )

            def own(picture: Image.Image = picture, most: int = most) -> torch.Tensor:
                plan = plan_media(*picture.size, TilingPolicy(max_tiles=most))
                return normalise(torch.from_numpy(media_tiles(picture, plan)), "imagenet")

            def theirs(picture: Image.Image = picture, peer: Any = peer) -> Any:
                return peer(picture, return_tensors="pt")["pixel_values"]

            exact = own().numpy()
            assert np.array_equal(exact, original_pixels(picture, most)), "pixels differ from the original's rule"
            difference = float(np.abs(exact - theirs().numpy()).max()) if exact.shape == theirs().shape else None
            contenders = {
                "vedere": own,
                "transformers": theirs,
                "original": lambda p=picture, m=most: original_pixels(p, m),
            }
            seconds = interleave(contenders, 3 * rounds)
            gain, own_ms = ratios(seconds, "transformers"), 1e3 * statistics.median(seconds["vedere"])
            against = statistics.median(o / t for o, t in zip(seconds["original"], seconds["vedere"], strict=True))
            print(
                f"  {name:8} {len(exact):2} tiles: {own_ms:6.1f} ms  {gain['vedere']:5.2f} x transformers (largest difference "
                f"{difference}), {against:5.2f} x the original's steps (bit-equal)"
            )
            result[f"{name}, {len(exact)} tiles"] = {
                "seconds": seconds,
                "ratio_to_transformers": gain,
                "largest_difference_to_transformers": difference,
            }
    return result


IMPORTS = {
    "torch": "import torch",
    "vedere": "import vedere.infer.session, vedere.infer.engine, vedere.models.checkpoints, vedere.models.internvl",
    "transformers": "from transformers import InternVLForConditionalGeneration",
}


def child(who: str, folder: str) -> None:
    """In a fresh process: loads, answers one token about one tile, prints seconds and the peak of resident memory."""
    begun = time.perf_counter()
    model: Any
    if who == "transformers":
        from transformers import InternVLForConditionalGeneration

        imported = time.perf_counter()
        model = Peer(InternVLForConditionalGeneration.from_pretrained(folder, dtype="auto"))
    else:
        from vedere.models.checkpoints import load_model
        from vedere.models.quantized import pack_weights

        imported = time.perf_counter()
        model = Own(pack_weights(load_model(folder), who), "stored")
    loaded = time.perf_counter()
    model.answer(1, 4)
    with open("/proc/self/status") as file:
        memory = {
            line.split(":")[0]: int(line.split()[1]) * 1024 for line in file if line.startswith(("VmHWM", "RssA"))
        }
    seconds = {"imports": imported - begun, "load": loaded - imported, "first_answer": time.perf_counter() - loaded}
    print(json.dumps(seconds | {"peak_bytes": memory["VmHWM"], "anonymous_bytes": memory["RssAnon"]}))


def measure_import(threads: int, rounds: int) -> dict[str, Any]:
    """Seconds of fresh processes that only import, from bytecode as an installed package has it."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, capture_output=True)

    seconds = interleave({name: lambda c=code: run(c) for name, code in IMPORTS.items()}, rounds)
    beside = statistics.median(own - base for own, base in zip(seconds["vedere"], seconds["torch"], strict=True))
    for name, times in seconds.items():
        print(f"  import {name:13} {statistics.median(times):5.2f} s")
    print(f"  vedere is torch and {beside:.2f} s")
    return {"seconds": seconds, "vedere_beside_torch": beside}


def measure_load(folder: Path, threads: int, rounds: int, forms: list[str]) -> dict[str, Any]:
    """Load time and memory, each in a process of its own."""
    own, theirs = write_both(folder)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    loads: dict[str, list[dict[str, float]]] = {name: [] for name in forms}
    for number in range(rounds + 1):
        for who, found in loads.items():
            place = str(theirs if who == "transformers" else own)
            command = [sys.executable, __file__, "--child", who, place, "--threads", str(threads)]
            reply = subprocess.run(command, check=True, env=environment, capture_output=True, text=True)
            if number:
                found.append(json.loads(reply.stdout.splitlines()[-1]))
    for name, found in loads.items():
        middle = {key: statistics.median(each[key] for each in found) for key in found[0]}
        print(
            f"  load {name:13} {middle['load']:5.2f} s, then 4 tokens in {middle['first_answer']:5.2f} s; peak "
            f"{middle['peak_bytes'] / 1e9:.2f} GB, of it not mapped files {middle['anonymous_bytes'] / 1e9:.2f} GB at the end"
        )
    return {"processes": loads}


def add(name: str, part: str, threads: int, result: dict[str, Any]) -> None:
    """Puts a part's numbers into the file of results of this name."""
    path = RESULTS / f"{name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    kept.pop("machine", None)
    kept.setdefault(part, {})[f"{threads} threads"] = result
    store(name, kept)


def draw(name: str) -> None:
    """``results/NAME.png``: how many times faster than the peer, of all parts measured so far."""
    import matplotlib.pyplot as plt

    kept = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    bars: dict[str, float] = {}
    for part, runs in kept.items():
        for threads, result in runs.items() if part.startswith(("first", "decode")) else ():
            for form, gain in result["ratio_to_transformers"].items():
                if form != "transformers":
                    bars[f"{part}, {threads}: {form}"] = gain
    figure, axes = plt.subplots(figsize=(7, 0.28 * len(bars) + 1), layout="constrained")
    axes.bar_label(axes.barh(list(bars), list(bars.values())), fmt="%.2f x", padding=2)
    axes.axvline(1, color="black", linewidth=1)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_title("InternVL3-1B's shape on a CPU: times faster than transformers in bfloat16", fontsize=10)
    figure.savefig(RESULTS / f"{name}.png", dpi=120)


def main() -> None:
    """Compares, times, stores, draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["import", "load", "preprocess", "first", "decode"])
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 7])
    parser.add_argument("--contenders", nargs="+", default=["stored", "bf16", "bf16-single", "int8", "int4"])
    parser.add_argument("--weights", type=Path, help="where the two folders of weights are kept (3.8 GB)")
    parser.add_argument("--name", default="cpu_inference", help="of the stored results: one a processor")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads[0])
    if options.child:
        child(*options.child)
        return
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    print(f"{versions}, threads {options.threads}")
    models: dict[str, Any] = {}
    if {"first", "decode"} & set(options.parts):
        model = random_model()
        own = {name: Own(model, name) for name in options.contenders}
        models = {**own, "transformers": Peer(peer_model(model))}
        add(options.name, "relative_distance_of_logits", options.threads[0], compare(own, models["transformers"], 1))
    with tempfile.TemporaryDirectory() as scratch:
        for threads in options.threads:
            torch.set_num_threads(threads)
            print(f"{threads} threads")
            for part in options.parts:
                if part == "import":
                    result = measure_import(threads, options.rounds)
                elif part == "load":
                    result = measure_load(
                        options.weights or Path(scratch), threads, options.rounds, [*options.contenders, "transformers"]
                    )
                elif part == "preprocess":
                    result = measure_preprocess(options.rounds)
                elif part == "decode":
                    result = measure_decode(models, options.rounds)
                else:
                    for tiles in options.tiles:
                        few = max(1, options.rounds // tiles)
                        add(options.name, f"first, {tiles} tiles", threads, measure_first(models, few, tiles))
                    continue
                add(options.name, part, threads, result)
    if models:
        draw(options.name)


if __name__ == "__main__":
    main()
