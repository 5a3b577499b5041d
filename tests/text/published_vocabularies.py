"""Real vocabularies that PyPI wheels carry under the Apache licence, written in the forms of the official releases."""

import base64
import itertools
import json
from pathlib import Path

from vedere.packages import fetch_wheel
from vedere.text.byte_pairs import BYTE_OF


def qwen_from_wheel(folder: Path) -> None:
    """Qwen's published vocabulary (dashscope's wheel, Apache-2.0): 151,643 ranked byte strings, in Qwen2's slow form."""
    folder.mkdir(parents=True, exist_ok=True)
    sign = {byte: character for character, byte in BYTE_OF.items()}
    lines = (fetch_wheel("dashscope==2.0.2") / "dashscope" / "resources" / "qwen.tiktoken").read_text().splitlines()
    ranks = {base64.b64decode(text): int(rank) for text, rank in (line.split() for line in lines)}
    merges = []
    for token, rank in ranks.items():
        parts = [bytes([byte]) for byte in token]
        while len(parts) > 2:  # merge as far as earlier ranks do: the last two parts are the merge that made this token
            best, place = min((ranks.get(a + b, rank), i) for i, (a, b) in enumerate(itertools.pairwise(parts)))
            assert best < rank
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            merges.append(" ".join("".join(sign[byte] for byte in part) for part in parts))
    vocab = {"".join(sign[byte] for byte in token): rank for token, rank in ranks.items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    added = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    (folder / "added_tokens.json").write_text(json.dumps({text: 151643 + place for place, text in enumerate(added)}))
    config = {"tokenizer_class": "Qwen2Tokenizer", "additional_special_tokens": list(added)}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def mistral_from_wheel(folder: Path, legacy: bool) -> None:
    """Mistral's first (mistral-common's wheel, Apache-2.0): 32,000 pieces with a dummy prefix, as Llama's and Phi-3's."""
    folder.mkdir(parents=True, exist_ok=True)
    model = fetch_wheel("mistral-common==1.13.1") / "mistral_common" / "data" / "tokenizer.model.v1"
    (folder / "tokenizer.model").write_bytes(model.read_bytes())
    added = {str(index): {"content": text, "special": True} for index, text in enumerate(("<unk>", "<s>", "</s>"))}
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "legacy": legacy,
        "added_tokens_decoder": added,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
