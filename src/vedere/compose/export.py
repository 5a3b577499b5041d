"""An article as Markdown with its pictures beside it, as one HTML file, or as DOCX; attributions go with the pictures.

Nothing that a model or a user wrote can become markup: texts are escaped in HTML and Markdown. Markdown names pictures by
number, never by title or by their own names, so no text decides about a path. DOCX needs python-docx, an optional package.
"""

from __future__ import annotations

import base64
import html
import importlib
import io
import json
import mimetypes
import re
import shutil
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from vedere.atomic import write_atomically
from vedere.compose.article import Article, Illustration, Picture, write_text
from vedere.errors import ConfigError, MediaError
from vedere.vision.pixels import open_image

_MARKUP = re.compile(r"([\\`*_\[\]#|~!])")
_INVALID = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WORD_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF")
_WIDEST, _HIGHEST = 5.0, 8.0  # inches of a picture
_LIST = re.compile(r"^(\s*)([-+]|\d+[.)])(?=\s)")
_STYLE = (
    "body{max-width:42rem;margin:2rem auto;padding:0 1rem;font:1.05rem/1.6 system-ui,sans-serif;color:#222}"
    "figure{margin:1.5rem 0;text-align:center}img{max-width:100%;height:auto}"
    "figcaption,footer{font-size:.85rem;color:#666}"
)


def credit(picture: Picture) -> str:
    """Who has to be named for a picture, its source and licence; empty where nothing is known."""
    return ", ".join(part for part in (picture.attribution, picture.source, picture.licence) if part)


def credits_of(article: Article) -> tuple[str, ...]:
    """The credits of all pictures in reading order, each once."""
    return tuple(dict.fromkeys(filter(None, map(credit, article.pictures()))))


def markdown(article: Article, files: dict[str, str] | None = None) -> str:
    """The article as Markdown.

    Args:
        article: What to write.
        files: Picture id -> file name to refer to; by default the pictures' own paths.
    """
    blocks = [f"# {_escaped(article.title)}"]
    for paragraph in article.paragraphs:
        blocks.append(_escaped(paragraph.text))
        picture = paragraph.illustration.picture if paragraph.illustration else None
        if paragraph.illustration is not None and picture is not None:
            caption = _escaped(_caption(paragraph.illustration))
            path = (files or {}).get(picture.id, picture.path)
            given = f"\n*{_escaped(credit(picture))}*" if credit(picture) else ""
            blocks.append(f"![{caption}](<{path.replace('<', '%3C').replace('>', '%3E')}>)\n{caption}{given}")
    return "\n\n".join(blocks) + "\n"


def save_markdown(article: Article, folder: Path | str, stem: str = "article") -> Path:
    """Writes ``article.md`` and the pictures into a folder; returns the file.

    Args:
        article: What to write.
        folder: It is made.
        stem: Another name than ``article``, which the pictures' names then begin with.

    Raises:
        MediaError: a picture cannot be read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, str] = {}
    front = "" if stem == "article" else f"{stem}-"
    for picture in article.pictures():
        name = f"{front}picture-{len(files) + 1}{_suffix(picture)}"
        try:
            shutil.copyfile(picture.path, folder / name)
        except OSError as error:
            raise _unreadable(picture, error) from None
        files[picture.id] = name
    path = folder / f"{stem}.md"
    text = markdown(article, files)
    write_text(path, text)
    return path


def page(article: Article, language: str = "") -> str:
    """The article as one HTML page with its pictures inside.

    Args:
        article: What to write.
        language: Code for the page (``en``, ``zh``); by default by its characters.

    Raises:
        MediaError: a picture cannot be read.
    """
    chinese = re.search(r"[\u4e00-\u9fff]", article.title + "".join(p.text for p in article.paragraphs[:3]))
    code = language or ("zh" if chinese else "en")
    title = html.escape(article.title)
    body = [f"<h1>{title}</h1>"]
    for paragraph in article.paragraphs:
        body.append(f"<p>{html.escape(paragraph.text)}</p>")
        picture = paragraph.illustration.picture if paragraph.illustration else None
        if paragraph.illustration is not None and picture is not None:
            caption = html.escape(_caption(paragraph.illustration))
            given = f"<br><small>{html.escape(credit(picture))}</small>" if credit(picture) else ""
            body.append(
                f'<figure><img src="{_data_url(picture)}" alt="{caption}"><figcaption>{caption}{given}</figcaption></figure>'
            )
    return (
        f'<!doctype html>\n<html lang="{html.escape(code)}">\n<head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head>\n<body>\n'
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def save_page(article: Article, path: Path | str, language: str = "") -> None:
    """Writes `page`, atomically."""
    text = page(article, language)
    write_text(path, text)


def structured(article: Article) -> dict[str, Any]:
    """The article as plain data for other programs: title, sections with their pictures, credits in reading order."""
    sections = []
    for paragraph in article.paragraphs:
        section: dict[str, Any] = {"text": paragraph.text}
        spot = paragraph.illustration
        if spot is not None:
            section["image"] = {
                "id": spot.picture.id if spot.picture else None,
                "file": spot.picture.path if spot.picture else None,
                "caption": _caption(spot),
                "selected": spot.selected,
                "chosen_by": spot.chosen_by,
                "note": spot.note,
                "candidates": [
                    {
                        "id": picture.id,
                        "file": picture.path,
                        "caption": picture.caption,
                        "attribution": picture.attribution,
                        "licence": picture.licence,
                        "source": picture.source,
                    }
                    for picture in spot.candidates
                ],
            }
        sections.append(section)
    return {"title": article.title, "sections": sections, "credits": list(credits_of(article))}


def save_json(article: Article, path: Path | str) -> None:
    """Writes `structured`, atomically; `Document.save` is what keeps the history and can be opened again."""
    text = json.dumps(structured(article), ensure_ascii=False, indent=1)
    write_text(path, text + "\n")


def load_docx() -> tuple[Any, Any]:
    """The modules ``docx`` and ``docx.shared``.

    Raises:
        ConfigError: python-docx is not installed.
    """
    try:
        return importlib.import_module("docx"), importlib.import_module("docx.shared")
    except ModuleNotFoundError:
        raise ConfigError(
            "DOCX needs the package python-docx; install it with: pip install 'vedere[compose]'"
        ) from None


def save_docx(article: Article, path: Path | str) -> None:
    """Writes a Word document with pictures, captions and credits.

    Raises:
        ConfigError: python-docx is not installed.
        MediaError: a picture cannot be read.
    """
    docx, shared = load_docx()
    document = docx.Document()
    document.add_heading(_valid(article.title), 0)
    for paragraph in article.paragraphs:
        document.add_paragraph(_valid(paragraph.text))
        picture = paragraph.illustration.picture if paragraph.illustration else None
        if paragraph.illustration is not None and picture is not None:
            try:
                data, width, height = _for_word(picture)
                inches = min(_WIDEST, _HIGHEST * width / height)
                document.add_picture(data, width=shared.Inches(inches))
            except Exception as error:  # the package has no common base for what it cannot read
                raise _unreadable(picture, error) from None
            lines = [_caption(paragraph.illustration), credit(picture)]
            document.add_paragraph(_valid("\n".join(filter(None, lines))), style="Caption")
    write_atomically(path, lambda target: document.save(str(target)))


def _valid(text: str) -> str:
    """A text without the characters that XML cannot hold."""
    return _INVALID.sub(" ", text)


def _for_word(picture: Picture) -> tuple[io.BytesIO, int, int]:
    """(content, width, height) of a picture: its file where Word shows that as it is, else the upright picture as PNG."""
    image = open_image(picture.path)
    with Image.open(picture.path) as opened:
        as_it_is = opened.format in _WORD_FORMATS and opened.getexif().get(ExifTags.Base.Orientation, 1) == 1
    if as_it_is:
        return io.BytesIO(Path(picture.path).read_bytes()), *image.size
    data = io.BytesIO()
    image.save(data, "PNG")
    return data, *image.size


def _caption(illustration: Illustration) -> str:
    picture = illustration.picture
    return illustration.caption or (picture.caption if picture else "")


def _escaped(text: str) -> str:
    """A text that Markdown shows as it is."""
    safe = _MARKUP.sub(r"\\\1", html.escape(text, quote=False))
    return _LIST.sub(lambda found: f"{found[1]}{found[2][:-1]}\\{found[2][-1]}", safe)


def _suffix(picture: Picture) -> str:
    suffix = Path(picture.path).suffix.lower()
    return suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ""


def _data_url(picture: Picture) -> str:
    try:
        data = Path(picture.path).read_bytes()
    except (OSError, ValueError) as error:
        raise _unreadable(picture, error) from None
    kind = mimetypes.guess_type(picture.path)[0] or ""
    kind = kind if kind.startswith("image/") else "image/png"
    return f"data:{html.escape(kind)};base64,{base64.b64encode(data).decode()}"


def _unreadable(picture: Picture, error: Exception) -> MediaError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return MediaError(
        f"picture '{picture.id}' ({picture.path}) cannot be read ({reason}); swap it, or put the file back and export again"
    )
