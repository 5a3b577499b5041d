"""Peak memory and seconds of loading a checkpoint of several shards, in every layout and with conversion of dtype.

    python benchmarks/loading.py [--megabytes 1100] [--shards 5]

Each load is a process of its own: it imports everything, notes its memory, loads, touches every page of every weight, and
reports the peak above the note as a share of the weights' bytes. 1.0 is the floor; a second copy would be 2.0. The limit
stated in the documentation is 1.1. Linux only (/proc). The files are in the page cache, so the seconds are without a disk.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import store

from vedere.models.checkpoints import key_map, load_model
from vedere.models.decoder import DecoderConfig
from vedere.models.hf_config import hf_config
from vedere.models.intern_vit import InternViTConfig
from vedere.models.internvl import InternVLConfig
from vedere.models.patches import PatchConfig
from vedere.models.published import native_config, original_config
from vedere.models.shards import json_writer, write_tensors

CASES = {  # name: layout, dtype in the files, dtype asked for (None: as stored)
    "own names, as stored": ("vedere", torch.bfloat16, None),
    "own names, bf16 to fp32": ("vedere", torch.bfloat16, "float32"),
    "own names, fp32 to bf16": ("vedere", torch.float32, "bfloat16"),
    "original names (fused wqkv), as stored": ("original", torch.bfloat16, None),
    "original names (fused wqkv), fp32 to bf16": ("original", torch.float32, "bfloat16"),
    "native names (split qkv), as stored": ("hf", torch.bfloat16, None),
}
LIMIT = 1.1


def shape(megabytes: int) -> InternVLConfig:
    """A model of about that size in bf16: a fifth each for embedding and head, the rest in layers, as in small releases."""
    hidden = max(64, round(1536 * math.sqrt(megabytes / 1100) / 64) * 64)
    layers = 6 if megabytes > 500 else 12
    head = 64
    decoder = DecoderConfig(
        hidden_size=hidden,
        ffn_size=hidden * (35 if layers == 6 else 18) // 6,
        layers=layers,
        heads=hidden // head,
        kv_heads=hidden // head // 2 if hidden // head % 2 == 0 else 1,
        head_dim=head,
        vocab_size=60 * hidden,
    )
    patches = PatchConfig(width=256)
    tower = InternViTConfig(patches=patches, layers=4, heads=4, ffn_size=1024)
    return InternVLConfig(vision=tower, decoder=decoder)


def write(folder: Path, config: InternVLConfig, layout: str, dtype: torch.dtype, shards: int) -> None:
    """A checkpoint whose numbers mean nothing and whose shapes are those of ``config``."""
    names = key_map(config, layout)
    shapes = names.own_shapes if layout == "vedere" else names.foreign_shapes
    tensors = {name: torch.full(size, 0.5, dtype=dtype) for name, size in shapes.items()}
    makers: dict[str, Any] = {
        "vedere": native_config,
        "original": original_config,
        "hf": lambda model, extras: hf_config(model, extras, 7),
    }
    most = sum(tensor.nbytes for tensor in tensors.values()) // shards + 1
    write_tensors(
        folder, tensors, max_shard_bytes=most, beside={"config.json": json_writer(makers[layout](config, {}))}
    )


def memory(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def measure(folder: Path, dtype: str | None) -> dict[str, float]:
    """Loads once in this process."""
    load_model(folder.parent / "small")  # imports and first allocations are not the checkpoint's
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts again from here
    before, start = memory("VmRSS"), time.perf_counter()
    model = load_model(folder, None if dtype is None else getattr(torch, dtype))
    seconds = time.perf_counter() - start
    weights = sum(parameter.nbytes for parameter in model.parameters())
    for parameter in model.parameters():
        parameter.detach().flatten()[::1024].sum()  # every page
    return {"seconds": seconds, "bytes": weights, "peak": memory("VmHWM") - before}


def main() -> None:
    """Writes checkpoints, loads them in processes, prints and stores the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1100)
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print the result as JSON and store nothing")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        folder, dtype = options.child
        print(json.dumps(measure(Path(folder), None if dtype == "stored" else dtype)))
        return
    config, results = shape(options.megabytes), {}
    with tempfile.TemporaryDirectory() as root:
        write(Path(root) / "small", shape(1), "vedere", torch.bfloat16, 1)
        for name, (layout, stored, wanted) in CASES.items():
            folder = Path(root) / "checkpoint"
            write(folder, config, layout, stored, options.shards)
            files = len(list(folder.glob("*.safetensors")))
            command = [sys.executable, __file__, "--child", str(folder), wanted or "stored"]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            results[name] = found | {"shards": files, "peak_share": found["peak"] / found["bytes"]}
            if not options.json:
                print(
                    f"{name}: {found['bytes'] / 1e9:.2f} GB in {files} shards, {found['seconds']:.2f} s, peak "
                    f"{results[name]['peak_share']:.3f} of the weights"
                )
    if options.json:
        print(json.dumps(results))
    else:
        store("loading", {"limit": LIMIT, "cases": results})


if __name__ == "__main__":
    main()
