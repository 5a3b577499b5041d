"""Byte-level BPE as `vocab.json` and `merges.txt`: the slow form of the Qwen2 to Qwen3 tokenizers (InternVL 2 to 3.5).

The files say which tokens there are and how pairs merge, and nothing about what comes before: that text is brought to
Unicode's form NFC and split by Qwen2's pattern, each digit by itself, stands in the code of the original tokenizer class,
and here. GPT-2's class splits by the library's own rule. Another class is refused.

Cost: 0.4 s for Qwen2's 151,643 tokens.
"""

from __future__ import annotations

from pathlib import Path

from vedere.errors import CheckpointError, ConfigError
from vedere.text.byte_pairs import BYTE_OF, BytePairs, guarded
from vedere.text.side_files import MOST_IDS, read_json, read_side_files

_QWEN2 = ("Qwen2Tokenizer", "Qwen2TokenizerFast")
_GPT2 = ("GPT2Tokenizer", "GPT2TokenizerFast")
# Interface constant of the class.
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load_vocab_and_merges(directory: Path) -> BytePairs:
    """Reads `vocab.json`, `merges.txt` and the side files: the slow form of the Qwen2 tokenizers.

    Raises:
        CheckpointError: a file is missing or damaged, or they do not belong together.
        ConfigError: a kind of tokenizer that vedere does not know in this form.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    config = read_side_files(directory)
    kind = str(config.get("tokenizer_class", _QWEN2[0]))
    if kind not in (*_QWEN2, *_GPT2):
        raise ConfigError(
            f"{directory} holds vocab.json and merges.txt of a {kind}; expected a Qwen2Tokenizer or GPT2Tokenizer: use the "
            "release's tokenizer.json"
        )
    vocab, merges = _read_vocab(directory / "vocab.json"), _read_merges(directory / "merges.txt")

    def fail(error: BaseException) -> CheckpointError:
        return CheckpointError(f"{directory}: merges.txt does not fit vocab.json: {_misfit(vocab, merges) or error}")

    inner = Tokenizer(guarded(lambda: models.BPE(vocab, merges), fail))
    inner.decoder = decoders.ByteLevel()
    prefix = bool(config.get("add_prefix_space", False))
    if kind in _QWEN2:
        inner.normalizer = normalizers.NFC()
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
            ]
        )
    else:
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return BytePairs(inner, max(vocab.values()), {"type": "ByteLevel"}, str(directory / "vocab.json"), config)


def _read_vocab(path: Path) -> dict[str, int]:
    vocab = read_json(path)
    lost = [character for character in BYTE_OF if character not in vocab]
    if lost:
        raise CheckpointError(
            f"{path} lacks {len(lost)} of the 256 byte characters, {lost[0]!r} for one, so text would be lost; expected a "
            "byte-level vocabulary: fetch it again"
        )
    seen: dict[int, str] = {}
    for text, index in vocab.items():
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < MOST_IDS:
            raise CheckpointError(
                f"{path} gives {text[:40]!r} the id {str(index)[:20]}; expected a number from 0 to {MOST_IDS - 1}: fetch it "
                "again"
            )
        if seen.setdefault(index, text) != text:
            raise CheckpointError(
                f"{path} gives {seen[index][:40]!r} and {text[:40]!r} one id, {index}; expected one token an id: fetch it again"
            )
    return vocab


def _read_merges(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        raise CheckpointError(f"{path.parent} holds vocab.json without merges.txt; fetch that too")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}; fetch it again") from None
    lines = text.split("\n")  # no other character ends a line: some are parts of tokens
    header = int(lines[0].startswith("#version"))
    merges = []
    for number, line in enumerate(lines[header:], 1 + header):
        pair = line.split(" ")
        if len(pair) == 2 and pair[0] and pair[1]:
            merges.append((pair[0], pair[1]))
        elif line:
            raise CheckpointError(
                f"line {number} of {path} is {line[:60]!r}; expected two tokens with a space between: fetch it again"
            )
    return merges


def _misfit(vocab: dict[str, int], merges: list[tuple[str, str]]) -> str:
    """The first merge with a part or result that is no token, in words."""
    for number, (left, right) in enumerate(merges, 1):
        for token in (left, right, left + right):
            if token not in vocab:
                return (
                    f"merge {number} is {left!r} with {right!r}, and {token!r} is no token; fetch both from one release"
                )
    return ""
