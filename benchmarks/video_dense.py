"""Frames of a short clip when most of them are wanted: by seeking where it pays, against decoding everything.

`video_seek` measures few frames of an hour, where seeking wins. Here it must not lose: all frames, every second one, the last
one of each group of pictures (for which a seek leaves nothing out), and a few for contrast. Both contenders open the file
anew, decode in one thread and make pictures of the wanted frames alone; their frames are compared before a time counts.
Reading frames by index costs a pass over the packets besides, and a look at each frame's side data, which decoding
everything does without. Processor time of one thread, so that a busy machine disturbs little.

    python benchmarks/video_dense.py [--rounds 5] [--frames 300]     # results/video_dense.json
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from harness import interleave, ratios, store
from PIL import Image

SIZE = (640, 360)
GROUPS = (20, 250)  # frames from key frame to key frame


def encode(path: Path, frames: int, group: int) -> None:
    """A clip of drifting stripes with a little noise, B-frames and key frames ``group`` apart."""
    width, height = SIZE
    rng, across = np.random.default_rng(0), np.arange(width)[None, :, None]
    with av.open(str(path), "w") as container:
        params = f"keyint={group}:min-keyint={group}:scenecut=0:bframes=3"
        stream = container.add_stream("libx264", rate=25, options={"threads": "1", "x264-params": params})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for k in range(frames):
            stripes = 128 + 90 * np.sin((across + 3 * k) / (20, 33, 47))
            noisy = stripes + rng.integers(-6, 7, (height, width, 1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy.clip(0, 255).astype(np.uint8), "rgb24")))
        container.mux(stream.encode(None))


def decode_all(path: Path, wanted: Sequence[int]) -> list[Image.Image]:
    """The wanted frames of a full decode in one thread."""
    places, found = set(wanted), []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.thread_type = 1, "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in places:
                found.append(frame.to_image())
    return found


def main() -> None:
    """Compares, measures, stores."""
    from vedere.vision.video import frames_at

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=300)
    options = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "clip": {"size": SIZE, "frames": options.frames, "av": av.__version__},
        "clock": "processor seconds",
        "groups": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for group in GROUPS:
            path = Path(folder) / f"{group}.mp4"
            encode(path, options.frames, group)
            sets = {
                "all": range(options.frames),
                "every 2nd": range(0, options.frames, 2),
                "last of each 20": range(19, options.frames, 20),
                "8 evenly": range(options.frames // 16, options.frames, options.frames // 8),
            }
            for name, wanted in sets.items():
                ours, theirs = frames_at(path, wanted).frames, decode_all(path, wanted)
                assert [one.tobytes() for one in ours] == [one.tobytes() for one in theirs], f"{name}: frames differ"
                contenders = {
                    "decode all": functools.partial(decode_all, path, wanted),
                    "frames_at": functools.partial(frames_at, path, wanted),
                }
                seconds = interleave(contenders, options.rounds, clock=time.process_time)
                ratio = ratios(seconds, "decode all")["frames_at"]
                entry = {"frames": len(wanted), "times_as_fast_as_decode_all": ratio, "seconds": seconds}
                result["groups"].setdefault(str(group), {})[name] = entry
                print(
                    f"groups of {group:>3}, {name:<16} {len(wanted):>3} frames: {ratio:.2f} times as fast", flush=True
                )
    print(f"written to {store('video_dense', result)}")


if __name__ == "__main__":
    main()
