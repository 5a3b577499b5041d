"""Rebuilds the test vocabularies in ``tests/text/vocabularies``: real file forms, small vocabularies.

    .venv/bin/python tools/train_vocabularies.py [FOLDER]

Text: names of emoji in eleven languages (npm package emojibase-data 17.0.0, MIT; its labels are those of Unicode CLDR) and
a few sentences of this file. Three folders come out, each a tokenizer of a
family as its releases write it, with that family's own names for added tokens:

* ``qwen2``: byte-level BPE as vocab.json + merges.txt + added_tokens.json + special_tokens_map.json + tokenizer_config.json,
  and the same as tokenizer.json in ``qwen2-fast``;
* ``internlm2``: sentencepiece with byte fallback, no dummy prefix, reserved pieces at the end that chat markers replace;
* ``phi3``: sentencepiece with a dummy prefix, ``legacy: false`` and role markers that swallow white space.

Equal inputs give equal files; the versions of `tokenizers` and `sentencepiece` may change them.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vedere.packages import fetch_npm

ROOT = Path(__file__).resolve().parents[1]
LANGUAGES = ("en", "zh", "ja", "hi", "th", "ru", "de", "fr", "ko", "vi", "uk")
SENTENCES = (
    "What is in the picture? It shows a red bus, 12 green cars and a dog's tail; they're moving.",
    "Describe the image in one sentence.  The man doesn't walk: he waits.\n\n\tNo   spaces are lost.",
    "我们在图片中看到了什么？一只猫坐在椅子上。",
    "مرحبا بالعالم، هذه صورة قطة سوداء تجلس على كرسي أحمر.",
    "ما الذي تراه في الصورة؟ ثلاث سيارات وحافلة واحدة.",
    "def area(width, height):\n    return width * height  # pixels\n",
    "for (int i = 0; i < n; ++i) { sum += a[i]; }\n",
)
MEDIA = ("<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>")
BPE_TOKENS, PIECES, RESERVED = 1600, 4000, 12
_SPLIT = (  # the pattern of Qwen2's pre-tokenizer
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def texts() -> Iterator[str]:
    """The training text, a line at a time."""
    folder = fetch_npm("emojibase-data", "17.0.0")
    for language in LANGUAGES:
        entries = json.loads((folder / language / "data.json").read_text(encoding="utf-8"))
        for entry in entries:
            tags = entry.get("tags") or ()
            yield f"{entry['emoji']} {entry['label']}: {', '.join(tags)}"
    for sentence in SENTENCES:
        yield from [sentence] * 20


def write(path: Path, data: Any) -> None:
    """Writes JSON as the releases do, a key a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def token(text: str, **flags: bool) -> dict[str, Any]:
    """An entry of ``added_tokens_decoder``."""
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": text, **plain, **flags}


def train_qwen2(out: Path) -> None:
    """Byte-level BPE in both forms; added tokens follow the vocabulary in the order of InternVL2.5 and 3."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=BPE_TOKENS, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(texts(), trainer)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *MEDIA)
    plain = ("<tool_call>", "</tool_call>")  # of Qwen2.5: added, but no control tokens
    slow = out / "qwen2"
    slow.mkdir(parents=True, exist_ok=True)
    inner.model.save(str(slow))
    first = inner.get_vocab_size()
    added = {text: first + place for place, text in enumerate((*special[:3], *plain, *special[3:]))}
    decoder = {str(index): token(text, special=text not in plain) for text, index in added.items()}
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(special[1:]),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write(slow / "added_tokens.json", added)
    write(slow / "tokenizer_config.json", config)
    names = {
        "additional_special_tokens": list(special[1:]),
        "eos_token": token("<|im_end|>"),
        "pad_token": token(special[0]),
    }
    write(slow / "special_tokens_map.json", names)
    inner.add_tokens([AddedToken(text, special=text not in plain, normalized=False) for text in added])
    fast = out / "qwen2-fast"
    fast.mkdir(parents=True, exist_ok=True)
    inner.save(str(fast / "tokenizer.json"))
    write(fast / "tokenizer_config.json", config)


def train_pieces(size: int, **options: Any) -> bytes:
    """A sentencepiece BPE model with byte fallback."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=texts(),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        character_coverage=0.98,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def _user_defined(text: str) -> bytes:
    """One more entry of a model file's repeated field 1: its text and the type "user defined"."""
    entry = b"\x0a" + bytes([len(text)]) + text.encode() + b"\x18\x04"
    return b"\x0a" + bytes([len(entry)]) + entry


def train_internlm2(out: Path) -> None:
    """As InternLM2 writes it: markers in the places of the last reserved pieces, media tokens behind the vocabulary."""
    reserved = [f"[UNUSED_TOKEN_{number}]" for number in range(RESERVED)]
    model = train_pieces(PIECES - RESERVED, add_dummy_prefix=False) + b"".join(map(_user_defined, reserved))
    markers = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
    places = range(PIECES - len(markers), PIECES)
    ids = dict(zip(markers, places, strict=True)) | {text: PIECES + place for place, text in enumerate(MEDIA)}
    decoder = {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>")}
    decoder |= {str(index): token(text) for text, index in ids.items()}
    names = [
        "<|im_start|>",
        "<|im_end|>",
        "<|action_start|>",
        "<|action_end|>",
        "<|interpreter|>",
        "<|plugin|>",
        *MEDIA,
    ]
    roles = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
    folder = out / "internlm2"
    config = {"added_tokens_decoder": decoder, "additional_special_tokens": names, **roles}
    write(folder / "tokenizer_config.json", config | {"tokenizer_class": "InternLM2Tokenizer"})
    write(folder / "added_tokens.json", ids)
    write(folder / "special_tokens_map.json", {"additional_special_tokens": names, **roles})
    (folder / "tokenizer.model").write_bytes(model)


def train_phi3(out: Path) -> None:
    """As Phi-3 writes it: a dummy prefix in the model, role markers that swallow the white space behind them."""
    model = train_pieces(PIECES, add_dummy_prefix=True)
    roles = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
    decoder = {"0": token("<unk>"), "1": token("<s>"), "2": token("</s>", rstrip=True, special=False)}
    for place, text in enumerate((*roles, *MEDIA)):
        decoder[str(PIECES + place)] = token(text, rstrip=text in roles[1:])
    config = {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(MEDIA),
        "bos_token": "<s>",
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "pad_token": "<|endoftext|>",
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    folder = out / "phi3"
    write(folder / "tokenizer_config.json", config)
    added = {text["content"]: int(index) for index, text in decoder.items() if int(index) >= PIECES}
    write(folder / "added_tokens.json", added)
    (folder / "tokenizer.model").write_bytes(model)


def main() -> None:
    """Writes all folders."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "text" / "vocabularies"
    for train in (train_qwen2, train_internlm2, train_phi3):
        train(out)
    for path in sorted(out.rglob("*")):
        if path.is_file():
            print(f"{path.relative_to(out)} {path.stat().st_size}")


if __name__ == "__main__":
    main()
