"""Frames of an hour of 1080p video: by seeking, by decoding everything, and by decord.

The hour is one encoded minute, remuxed sixty times, so its key frames lie as far apart as the encoder put them. The
contenders read the same frames of the same file: ``vedere.vision.frames_at``; decoding all frames in one thread and
keeping the wanted ones (what a reader without an index must do); and decord's ``get_batch`` in an environment of its
own (``--decord PYTHON``), with one thread and with its default. Every contender's frames are compared with those of
the full decode before a time counts.

The bound: from the last key frame before each wanted frame on, every frame has to be decoded (once for frames that
share one). A reader that does this and nothing else is as many times faster than decoding all as there are fewer
frames. Frames that no other one is made from need not be decoded on the way, so the bound can be passed.

    python benchmarks/video_seek.py --minute MINUTE.mp4 --hour HOUR.mp4     # makes HOUR.mp4 if it is not there
"""

from __future__ import annotations

import argparse
import bisect
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

RESULTS = Path(__file__).parent / "results"
COUNTS = (64, 384)

DECORD = """
import hashlib, json, sys, time
import decord
path, indices, threads, decoder = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3]), decord
start, cpu = time.perf_counter(), time.process_time()
reader = decoder.VideoReader(path, num_threads=threads)
opened = time.perf_counter() - start
pixels = []
for k in range(0, len(indices), 16):
    batch = reader.get_batch(indices[k : k + 16]).asnumpy()
    pixels += [batch[i, ::8, ::8].copy() for i in range(len(batch))]
seconds = time.perf_counter() - start
cpu = time.process_time() - cpu
print(json.dumps({"seconds": seconds, "cpu": cpu, "opening": opened, "frames": len(reader), "version": decord.__version__,
                  "thumbs": [p.tolist() for p in pixels[:: max(1, len(pixels) // 16)]]}))
"""


def remux(minute: Path, hour: Path, times: int) -> None:
    """Writes the packets of ``minute`` so many times after each other."""
    part = hour.with_name(f"{hour.stem}.part{hour.suffix}")
    with av.open(str(part), "w") as out:
        target, shift = None, 0
        for _ in range(times):
            with av.open(str(minute)) as source:
                stream = source.streams.video[0]
                if target is None:
                    target = out.add_stream_from_template(stream)
                    target.time_base = stream.time_base
                last = 0
                for packet in source.demux(stream):
                    if packet.dts is None:
                        continue
                    last = max(last, packet.pts + packet.duration)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, target
                    out.mux(packet)
                shift += last
    os.replace(part, hour)


def needed(path: Path, wanted: Sequence[int]) -> tuple[int, int, float]:
    """(frames that a reader from the key frames on decodes, frames in all, mean distance of key frames in frames)."""
    with av.open(str(path)) as container:
        packets = [(p.pts, p.is_keyframe) for p in container.demux(video=0) if p.pts is not None]
    pts = sorted(one for one, _ in packets)
    keys = sorted(bisect.bisect_left(pts, one) for one, key in packets if key)
    furthest: dict[int, int] = {}
    for index in wanted:
        key = keys[bisect.bisect_right(keys, index) - 1]
        furthest[key] = max(furthest.get(key, 0), index - key + 1)
    return sum(furthest.values()), len(pts), len(pts) / len(keys)


def digest(image: Any) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def decode_all(path: Path, wanted: dict[int, set[int]]) -> tuple[float, dict[int, str], dict[int, Any]]:
    """Seconds to decode everything in one thread, keeping the wanted frames; digests, and pictures for decord's comparison."""
    everything = set().union(*wanted.values())
    found: dict[int, str] = {}
    pictures: dict[int, Any] = {}
    hashing = 0.0
    start = time.perf_counter()
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        stream.thread_type = "NONE"
        for number, frame in enumerate(container.decode(stream)):
            if number in everything:
                image = frame.to_image()
                pause = time.perf_counter()
                found[number] = digest(image)
                pictures[number] = np.asarray(image)[::8, ::8].copy()
                hashing += time.perf_counter() - pause
    return time.perf_counter() - start - hashing, found, pictures


def by_seeking(path: Path, wanted: Sequence[int]) -> tuple[float, list[str]]:
    from vedere.vision.video import frames_at

    start = time.perf_counter()
    frames = []
    seconds = 0.0
    # Pieces keep memory low: 384 frames of 1080p are 2.4 GB. Each piece lists the packets again, which counts.
    for k in range(0, len(wanted), 128):
        video = frames_at(path, wanted[k : k + 128])
        seconds = time.perf_counter() - start
        frames += [digest(image) for image in video.frames]
        start = time.perf_counter() - seconds
    return seconds, frames


def decord(python: str, path: Path, wanted: Sequence[int], threads: int) -> dict[str, Any]:
    done = subprocess.run(
        [python, "-c", DECORD, str(path), json.dumps(list(wanted)), str(threads)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {
            "error": done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else f"status {done.returncode}"
        }
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measures one round and adds it to the rounds of the same file and versions that are there."""
    from vedere.vision.frames import frame_indices
    from vedere.vision.video import probe

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minute", type=Path, required=True, help="one encoded minute")
    parser.add_argument("--hour", type=Path, required=True, help="where the remuxed hour is or goes")
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--decord", default="", help="Python of an environment with decord or eva-decord")
    parser.add_argument("--fresh", action="store_true", help="forget earlier rounds")
    parser.add_argument("--out", type=Path, default=RESULTS / "video_seek.json")
    options = parser.parse_args()
    if not options.hour.exists():
        remux(options.minute, options.hour, options.times)
    path = options.hour
    info = probe(path)
    wanted = {count: list(frame_indices("middle", info.frames, info.fps, count)) for count in COUNTS}
    path.read_bytes()  # everyone reads from the page cache
    rounds: dict[str, Any] = {"seek": {}, "decord": {}, "bound": {}}
    seconds, digests, pictures = decode_all(path, {count: set(places) for count, places in wanted.items()})
    rounds["decode_all"] = seconds
    for count, places in wanted.items():
        took, found = by_seeking(path, places)
        assert found == [digests[place] for place in places], f"{count} frames differ from those of the full decode"
        rounds["seek"][str(count)] = took
        must, total, _ = needed(path, places)
        rounds["bound"][str(count)] = total / must
        if options.decord:
            rounds["decord"][str(count)] = compared(options.decord, path, places, pictures)
    earlier = [] if options.fresh or not options.out.exists() else json.loads(options.out.read_text())["rounds"]
    result = summary([*earlier, rounds], info, needed(path, wanted[64])[2], path)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    draw(result, options.out.with_suffix(".png"))
    print(json.dumps(result["medians"], indent=1))


def compared(python: str, path: Path, places: Sequence[int], pictures: dict[int, Any]) -> dict[str, Any]:
    """decord with its default threads (for few frames with one too), and how far its pixels are from ours."""
    entry: dict[str, Any] = {}
    step = max(1, len(places) // 16)
    for threads in (1, 0) if len(places) == COUNTS[0] else (0,):
        found = decord(python, path, places, threads)
        if "thumbs" in found:
            theirs = [np.asarray(one) for one in found.pop("thumbs")]
            ours = [pictures[place] for place in places[::step]]
            sizes = [
                (min(a.shape[0], b.shape[0]), min(a.shape[1], b.shape[1])) for a, b in zip(theirs, ours, strict=True)
            ]
            apart = [
                np.abs(a[:h, :w] - b[:h, :w].astype(int)).mean()
                for a, b, (h, w) in zip(theirs, ours, sizes, strict=True)
            ]
            found["mean_pixel_difference"] = float(np.mean(apart))
        entry[f"threads {threads or 'default'}"] = found
    return entry


def summary(rounds: list[dict[str, Any]], info: Any, spacing: float, path: Path) -> dict[str, Any]:
    """Medians of ratios over the rounds."""
    import statistics

    middle = statistics.median
    medians: dict[str, Any] = {"decode_all_seconds": middle(one["decode_all"] for one in rounds)}
    for count in map(str, COUNTS):
        ratio = middle(one["decode_all"] / one["seek"][count] for one in rounds)
        bound = rounds[-1]["bound"][count]
        entry = {
            "seek_seconds": middle(one["seek"][count] for one in rounds),
            "times_faster_than_decode_all": ratio,
            "bound_of_key_frames": bound,
            "share_of_bound": ratio / bound,
        }
        for threads in ("threads 1", "threads default"):
            theirs = [one for one in rounds if "seconds" in one["decord"].get(count, {}).get(threads, {})]
            if theirs:
                entry[f"decord_{threads.replace(' ', '_')}_seconds"] = middle(
                    one["decord"][count][threads]["seconds"] for one in theirs
                )
                entry[f"times_faster_than_decord_{threads.replace(' ', '_')}"] = middle(
                    one["decord"][count][threads]["seconds"] / one["seek"][count] for one in theirs
                )
        medians[f"{count} frames"] = entry
    return {
        "video": {
            "size": f"{info.width} x {info.height}",
            "frames": info.frames,
            "fps": info.fps,
            "seconds": info.duration,
            "bytes": path.stat().st_size,
            "frames_between_key_frames": spacing,
        },
        "versions": {"python": sys.version.split()[0], "av": av.__version__, "cores": os.cpu_count()},
        "medians": medians,
        "rounds": rounds,
    }


def draw(result: dict[str, Any], path: Path) -> None:
    """Bars: times faster than decoding all, with the bound as a line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
    whole = result["medians"]["decode_all_seconds"]
    names, colours = [], {"vedere": "#0072B2", "decord, 1 thread": "#E69F00", "decord, its default": "#D55E00"}
    for place, count in enumerate(COUNTS):
        entry = result["medians"][f"{count} frames"]
        bars = {
            "vedere": entry["seek_seconds"],
            "decord, 1 thread": entry.get("decord_threads_1_seconds"),
            "decord, its default": entry.get("decord_threads_default_seconds"),
        }
        for k, (name, seconds) in enumerate(bars.items()):
            if seconds:
                axes.bar(
                    place + 0.25 * (k - 1),
                    whole / seconds,
                    0.23,
                    color=colours[name],
                    label=name if not place else None,
                )
                axes.text(
                    place + 0.25 * (k - 1),
                    whole / seconds,
                    f"{whole / seconds:.1f}",
                    ha="center",
                    va="bottom",
                    fontsize=8,
                )
        bound = entry["bound_of_key_frames"]
        axes.plot(
            [place - 0.4, place + 0.4], [bound, bound], "k--", lw=1, label="key frames' bound" if not place else None
        )
        names.append(f"{count} frames")
    axes.set_xticks(range(len(COUNTS)), names)
    axes.set_ylabel("times faster than decoding all")
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.FixedLocator([1, 2, 5, 10, 20, 50]))
    axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
