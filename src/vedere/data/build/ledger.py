"""The ledger: what the corpus may be made of, under which licence, and who has to be named.

Weights that are shipped may have seen only data under the licences in `ALLOWED_LICENCES`; `build_corpus` refuses every
picture whose licence is not one of them. `docs/data-ledger.md` is `page()`, and a test keeps the two equal.

Cost: nothing; plain data.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vedere.data.build.typefaces import FAMILIES, HELDOUT
from vedere.errors import RecordError

ALLOWED_LICENCES = (
    "CC0-1.0",
    "CC-BY-2.0",
    "CC-BY-4.0",
    "CC-BY-SA-2.0",
    "CC-BY-SA-4.0",
    "MIT",
    "Apache-2.0",
    "OFL-1.1",
    "public-domain",
)


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source of data: `name` is its folder below the sources, or what it is called here."""

    name: str
    title: str
    origin: str
    licence: str
    used_for: str
    used: str
    attribution: str
    changes: str


SOURCES: tuple[Source, ...] = (
    Source(
        name="vedere",
        title="Pictures drawn by this repository",
        origin="src/vedere/data/build (scenes, words, documents, drawings, charts, pairs, clips)",
        licence="CC0-1.0",
        used_for="scenes, words, documents, drawings, charts, pairs, clips",
        used="everything the programs draw; beside the typefaces of the next entry DejaVu, STIX and Computer Modern as "
        "matplotlib carries them and Pillow's default font, all free to use for rendering",
        attribution="none needed",
        changes="none",
    ),
    Source(
        name="typefaces",
        title=f"{sum(map(len, FAMILIES.values()))} open typefaces of Fontsource",
        origin="npm packages @fontsource/FAMILY; families and versions stand in src/vedere/data/build/typefaces.py",
        licence="OFL-1.1 / Apache-2.0",
        used_for="words, documents; the reader of the stem",
        used="regular and bold of the Latin subset, to render text; no font file is copied or shipped. "
        f"{len(HELDOUT)} families are held out",
        attribution="the makers of each family; its package's LICENSE names them",
        changes="none to the fonts; text drawn with them is turned, coloured, blurred",
    ),
    Source(
        name="smollm2-words",
        title="Whole English words of the vocabulary of SmolLM2-135M-Instruct",
        origin="huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, tokenizer",
        licence="Apache-2.0",
        used_for="words, documents; the reader of the stem",
        used="13,177 words of 2 to 10 letters, in src/vedere/data/build/word_list.json; a tenth held out by their hash",
        attribution="Hugging Face (SmolLM2)",
        changes="kept where COCO's captions or Shakespeare use the word, or its ending or plural shows a whole word; rude "
        "words left out",
    ),
    Source(
        name="clothing-cc0",
        title="clothing-dataset-small",
        origin="github.com/alexeygrigorev/clothing-dataset-small",
        licence="CC0-1.0",
        used_for="garments",
        used="3,068 photographs of the train split for training, 341 of the validation split held out",
        attribution="none needed; Alexey Grigorev and the contributors of the dataset",
        changes="cropped, mirrored, turned, brightness, contrast and hue changed, resized",
    ),
    Source(
        name="nlvr",
        title="NLVR, Cornell Natural Language for Visual Reasoning (Suhr et al. 2017)",
        origin="github.com/lil-lab/nlvr",
        licence="CC-BY-4.0",
        used_for="boxes, nlvr",
        used="dev and hidden for training, test held out: pictures, statements, structured representations",
        attribution="Alane Suhr, Mike Lewis, James Yeh, Yoav Artzi",
        changes="cut into boxes; questions generated from the structured representations",
    ),
    Source(
        name="omniglot-small",
        title="Omniglot",
        origin="github.com/brendenlake/omniglot",
        licence="MIT",
        used_for="handwriting",
        used="five alphabets; drawers 1-16 for training, 17-20 held out",
        attribution="Brenden Lake, Ruslan Salakhutdinov, Joshua Tenenbaum",
        changes="strokes thickened, coloured, turned, resized",
    ),
    Source(
        name="coco-ccby",
        title="COCO 2017 photographs that are CC-BY or CC-BY-SA themselves",
        origin="cocodataset.org, photographs from Flickr",
        licence="CC-BY-2.0 / CC-BY-SA-2.0",
        used_for="captions",
        used="119 photographs, five sixths for training; the licence stands in every record",
        attribution="the photographers on Flickr; the address of each photograph stands in its record",
        changes="cropped, mirrored, turned, brightness, contrast and hue changed, resized; adaptations of CC-BY-SA pictures "
        "stay CC-BY-SA",
    ),
    Source(
        name="coco-captions",
        title="COCO 2017 captions",
        origin="cocodataset.org",
        licence="CC-BY-4.0",
        used_for="captions",
        used="the five captions of each of these photographs",
        attribution="COCO Consortium",
        changes="lower case, final full stop removed",
    ),
    Source(
        name="emojibase-data",
        title="emojibase-data 17.0.0, names of emoji",
        origin="npm emojibase-data; github.com/milesj/emojibase",
        licence="MIT",
        used_for="emoji",
        used="English and Chinese labels, tags, groups, shortcodes",
        attribution="Miles Johnson; the labels are those of Unicode CLDR, copyright Unicode, Inc. (Unicode License V3)",
        changes="names that differ only in size are one, captions and questions generated from them",
    ),
    Source(
        name="openmoji",
        title="OpenMoji",
        origin="npm @iconify-json/openmoji 1.2.29; github.com/hfg-gmuend/openmoji",
        licence="CC-BY-SA-4.0",
        used_for="emoji",
        used="1,093 drawings, for training",
        attribution="OpenMoji, HfG Schwäbisch Gmünd and contributors",
        changes="placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="twemoji",
        title="Twemoji",
        origin="npm @iconify-json/twemoji 1.2.5; github.com/jdecked/twemoji",
        licence="CC-BY-4.0",
        used_for="emoji",
        used="1,093 drawings, for training",
        attribution="Twitter, Inc. and other contributors",
        changes="placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="fluent-emoji-flat",
        title="Fluent Emoji, flat",
        origin="npm @iconify-json/fluent-emoji-flat 1.2.6; github.com/microsoft/fluentui-emoji",
        licence="MIT",
        used_for="emoji",
        used="1,084 drawings, for training",
        attribution="Microsoft Corporation",
        changes="placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="fluent-emoji",
        title="Fluent Emoji, in colour with shading",
        origin="npm @iconify-json/fluent-emoji 1.2.7; github.com/microsoft/fluentui-emoji",
        licence="MIT",
        used_for="emoji",
        used="1,084 drawings, for training",
        attribution="Microsoft Corporation",
        changes="placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="fluent-emoji-high-contrast",
        title="Fluent Emoji, high contrast",
        origin="npm @iconify-json/fluent-emoji-high-contrast 1.2.6; github.com/microsoft/fluentui-emoji",
        licence="MIT",
        used_for="emoji",
        used="1,019 drawings, for training; none whose name holds a colour",
        attribution="Microsoft Corporation",
        changes="inked, placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="emojione-v1",
        title="EmojiOne 1",
        origin="npm @iconify-json/emojione-v1 1.2.3; github.com/joypixels/emojione-legacy",
        licence="CC-BY-SA-4.0",
        used_for="emoji",
        used="724 drawings, for training",
        attribution="EmojiOne (Ranks.com, now JoyPixels)",
        changes="placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="emojione",
        title="EmojiOne 2 as kept by EmojiTwo",
        origin="npm @iconify-json/emojione 1.2.3; github.com/EmojiTwo/emojitwo",
        licence="CC-BY-4.0",
        used_for="emoji",
        used="841 drawings, for training",
        attribution="EmojiOne and the contributors of EmojiTwo",
        changes="placed on grounds, turned, mirrored, colour, brightness and sharpness changed, rendered at 160 px",
    ),
    Source(
        name="fxemoji",
        title="FxEmoji",
        origin="npm @iconify-json/fxemoji 1.2.2; github.com/mozilla/fxemoji",
        licence="Apache-2.0",
        used_for="emoji",
        used="688 drawings, all held out",
        attribution="Mozilla",
        changes="placed on plain grounds, rendered at 160 px",
    ),
    Source(
        name="easy-vqa",
        title="easy-VQA 1.0",
        origin="PyPI easy-vqa; github.com/vzhou842/easy-VQA",
        licence="MIT",
        used_for="easy_vqa",
        used="train split (4,000 pictures, 38,575 questions) for training, test split (1,000; 9,673) held out",
        attribution="Victor Zhou",
        changes="none; JPEG",
    ),
)


def require_allowed(licence: str, where: str) -> None:
    """Refuse a licence that shipped weights may not be trained under.

    Raises:
        RecordError: naming the record, the licence and the allowed ones.
    """
    if licence not in ALLOWED_LICENCES:
        raise RecordError(
            f"{where} has the licence '{licence or 'none'}', but only {', '.join(ALLOWED_LICENCES)} may go into the corpus; "
            "leave it out or correct its licence field"
        )


def page(names: Iterable[str] | None = None) -> str:
    """Return the ledger as a Markdown page, of all sources or of the named ones."""
    wanted = None if names is None else set(names)
    lines = [
        "# Data ledger",
        "",
        "What the shipped weights may have been trained on. Only data under these licences goes in: "
        f"{', '.join(ALLOWED_LICENCES)} (those that ask for it with attribution). The builder (`vedere.data.build`) "
        "refuses everything else.",
        "",
    ]
    for source in SOURCES:
        if wanted is not None and source.name not in wanted:
            continue
        lines += [
            f"## {source.name}: {source.title}",
            f"- Origin: {source.origin}",
            f"- Licence: {source.licence}",
            f"- Kinds: {source.used_for}",
            f"- Used: {source.used}",
            f"- Attribution: {source.attribution}",
            f"- Changes: {source.changes}",
            "",
        ]
    return "\n".join(lines)
