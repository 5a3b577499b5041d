"""Small vocabularies, built here: nothing is downloaded."""

import io
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from vedere.text.chat import TEMPLATES

CORPUS = [
    "What is in the picture? The picture shows a red bus and 12 green cars.",
    "Describe the image in one sentence. A dog's tail, it's wagging; we'll see 3 or 40 more.",
    "Frame1: Frame2: a man waves, then the man walks away.\n\nNo   spaces\tlost.",
    "Über die Brücke, 图里有什么? 一只猫。 naïve café ☃ 🙂",
] * 4


def marker_strings() -> list[str]:
    """Every string that a template writes as one token, in a fixed order."""
    found = ["<|endoftext|>"]
    for template in TEMPLATES.values():
        found += [*template.stop, *template.turn_markers]
        found += [template.image_start, template.image_context, template.image_end]
    return list(dict.fromkeys(text for text in found if text))


def train_raw() -> Tokenizer:
    raw = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    raw.decoder = decoders.ByteLevel()
    special = [AddedToken(text, special=True, normalized=False) for text in marker_strings()]
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(CORPUS, trainer)
    raw.add_tokens([AddedToken("<user-defined>", special=False, normalized=False)])
    return raw


def write_gguf(path: Path, raw: Tokenizer, *, pre: str = "smollm", skip: str = "", bos: int | None = None) -> Path:
    """The vocabulary of ``raw`` as a GGUF file with one tensor."""
    model = json.loads(raw.to_str())["model"]
    added = raw.get_added_tokens_decoder()
    tokens = [raw.id_to_token(index) for index in range(raw.get_vocab_size())]
    types = [1 if index not in added else 3 if added[index].special else 4 for index in range(len(tokens))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_array("general.languages", ["en", "zh"])
    writer.add_float32("llama.rope.freq_base", 10000.0)
    writer.add_array("general.numbers", [1, 2, 3])
    writer.add_string("tokenizer.ggml.model", "gpt2")
    writer.add_string("tokenizer.ggml.pre", pre)
    if skip != "tokens":
        writer.add_array("tokenizer.ggml.tokens", tokens)
    if skip != "token_type":
        writer.add_array("tokenizer.ggml.token_type", types)
    if skip != "merges":
        writer.add_array("tokenizer.ggml.merges", merges)
    if bos is not None:
        writer.add_uint32("tokenizer.ggml.bos_token_id", bos)
        writer.add_bool("tokenizer.ggml.add_bos_token", True)
    writer.add_tensor("token_embd.weight", np.zeros((4, 8), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def train_pieces(**options) -> bytes:
    """A sentencepiece model with byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        byte_fallback=True,
        character_coverage=0.99,
        minloglevel=2,
        **options,
    )
    return model.getvalue()
