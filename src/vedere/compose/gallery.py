"""The user's own pictures as a gallery: a folder or data set of any size, searched by caption.

The paper ranks a pool by the similarity of the wanted caption to precomputed embeddings and keeps the best few (arXiv
2309.15112, sec. 3.3). Here the pool is a folder (`vedere.compose.pool`), its index an embedded vector database beside vedere's
cache, and the embedding either that of what is known about a picture in words (`vedere.compose.sidecars`), or of its pixels,
with an encoder that has both sides (`vedere.compose.encoders`). A picture with several captions has the mean of their vectors.

What differs from a plain search: a picture below the least similarity is no candidate, so a place stays empty rather than
wrong; near-duplicates of a better hit, or of a picture that was shown before, are passed over; so is a file that has gone or
changed since it was indexed, and `FolderGallery.stale` names it.

The index follows the folder: `FolderGallery.update` reads new and changed pictures only, and forgets those that have gone. What
cannot be used is kept with its reason and looked at again when its file changes. An update may be stopped at any time and
goes on where it was.

Cost: one decoding and one embedding a new picture; a look at the disk (`stat`) for every other.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from vedere.compose.article import Picture
from vedere.compose.containers import SUFFIXES as CONTAINERS
from vedere.compose.encoders import Encoder, open_encoder
from vedere.compose.fingerprints import SAME, different_bits, perceptual_hash
from vedere.compose.gallery_table import EXHAUSTIVE, GalleryTable, Known, Row, Vectors
from vedere.compose.pool import Content, Pool, State
from vedere.compose.sidecars import Words, beside, inside, of_name, read_list
from vedere.config import check_ranges
from vedere.errors import ConfigError, MediaError
from vedere.packages import Say, cache_directory, say_on_stderr
from vedere.recaption.pictures import SUFFIXES
from vedere.vision.pixels import describe, open_image

Progress = Callable[[int, int], None]

_BATCH = 128  # pictures between two writes
_MOST_LOOKED_AT = 4096  # hits of one search


@dataclass(frozen=True, kw_only=True)
class GalleryConfig:
    """What a gallery takes and gives.

    Attributes:
        captions: List of captions (``.jsonl``, ``.csv``, ``.txt``); None: the one beside the pictures, if there is one.
        similarity: Least similarity of a candidate; None: the encoder's own.
        same_bits: Different bits of the hash up to which two pictures are the same one; -1: duplicates stay.
        shortest_side: Pictures with a shorter side, in pixels, are not used.
        attribution: Who has to be named for pictures of which nobody says it.
        licence: Licence of pictures of which nobody says it.
    """

    captions: Path | None = None
    similarity: float | None = None
    same_bits: int = SAME
    shortest_side: int = 32
    attribution: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a number out of range.
        """
        check_ranges(self, same_bits=-1, shortest_side=1)
        if self.similarity is not None and not -1.0 <= self.similarity <= 1.0:
            raise ConfigError(f"similarity {self.similarity}; expected -1 to 1, as a cosine")


@dataclass(frozen=True, kw_only=True)
class IndexReport:
    """What an update found.

    Attributes:
        pictures: Pictures in the gallery, those that cannot be used included.
        new: Read for the first time.
        changed: Read again, because file or words had changed.
        removed: Forgotten, because the file has gone.
        unusable: (name, reason) of every picture that cannot be used.
        wordless: Pictures that cannot be found, because nothing is known about them in words; 0 for an encoder that sees.
        unmatched: Names of the list of captions for which there is no file.
    """

    pictures: int
    new: int
    changed: int
    removed: int
    unusable: tuple[tuple[str, str], ...]
    wordless: int
    unmatched: int


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture that was found.

    Attributes:
        picture: The picture.
        similarity: Cosine to the query.
        tags: Its keywords.
    """

    picture: Picture
    similarity: float
    tags: tuple[str, ...] = ()


class FolderGallery:
    """A folder or data set of pictures behind `vedere.compose.steps.Gallery`.

    Args:
        source: As `vedere.compose.pool.Pool`.
        encoder: Turns captions, and perhaps pictures, into vectors.
        index: Folder of the index; None: below the cache folder, by the path of ``source``. Nothing is written into ``source``.
        config: What is taken and given.

    Raises:
        ConfigError: no such folder, or lancedb is not installed.
    """

    def __init__(
        self,
        source: Path | str,
        encoder: Encoder,
        *,
        index: Path | None = None,
        config: GalleryConfig | None = None,
    ) -> None:
        source = Path(source).expanduser()
        self.config = config or GalleryConfig()
        self.encoder = encoder
        self.index = index or _place(source.resolve())
        self.pool = Pool(source, self.index, self.config.captions)
        self.captions = self.pool.captions
        self.stale: dict[str, str] = {}
        self._table = GalleryTable(self.index, encoder.name, encoder.dimension)

    @property
    def folders(self) -> tuple[Path, Path]:
        """Where the files of found pictures may lie: the gallery's own folder, and beside the index."""
        return self.pool.folder, self.pool.taken_out

    def __len__(self) -> int:
        """Pictures in the index, unusable ones included."""
        return len(self._table)

    def update(self, progress: Progress = lambda done, total: None, *, exhaustive: int = EXHAUSTIVE) -> IndexReport:
        """Brings the index to the state of the folder.

        Args:
            progress: Receives (pictures that are through, pictures to read).
            exhaustive: Rows above which an inverted file is built.

        Raises:
            ConfigError: the gallery holds no picture.
            RecordError: its list of captions cannot be read.
        """
        words = read_list(self.captions) if self.captions else {}
        files = self.pool.states(words)
        if not files and not len(self):
            raise ConfigError(
                f"the gallery {self.pool.folder} holds no pictures; put files into it that end in "
                f"{', '.join(sorted(SUFFIXES | CONTAINERS))}"
            )
        known = before = self._table.known()
        gone = [name for name in known if name not in files]
        self._table.remove(gone)
        todo = [
            name for name, (size, time) in files.items() if self._differs(known.get(name), size, time, words.get(name))
        ]
        for done, rows in self._read(todo, files, words):
            self._table.put(rows, known.keys())
            progress(done, len(todo))
        if todo or gone:
            self._table.tidy(exhaustive)
        self.stale.clear()
        if todo or gone:
            known = self._table.known()
        problems = {name: state.problem for name, state in known.items() if state.problem}
        wordless = sum(problem == _WORDLESS for problem in problems.values())
        unusable = sorted((name, problem) for name, problem in problems.items() if problem != _WORDLESS)
        return IndexReport(
            pictures=len(files),
            new=sum(name not in before for name in todo),
            changed=sum(name in before for name in todo),
            removed=len(gone),
            unusable=tuple(unusable),
            wordless=wordless,
            unmatched=sum(name not in files for name in words),
        )

    def search(self, caption: str, count: int, exclude: Collection[str]) -> Sequence[Picture]:
        """As `vedere.compose.steps.Gallery.search`: fewer where fewer are similar enough."""
        return [hit.picture for hit in self.ranked(caption, count, exclude)]

    def ranked(self, caption: str, count: int, exclude: Collection[str] = ()) -> list[Hit]:
        """The best hits with their similarities.

        Args:
            caption: What the picture should show.
            count: Most hits.
            exclude: Ids that were shown; their near-duplicates are passed over too.
        """
        if not caption.strip() or count < 1 or not len(self):
            return []
        (vector,) = self.encoder.texts([caption])
        least = self.encoder.similarity if self.config.similarity is None else self.config.similarity
        seen = [row.hash for row in self._table.rows(exclude)]
        look = count + 12
        while True:
            rows = self._table.nearest(vector, look, exclude)
            hits, hashes = list[Hit](), list(seen)
            for row in rows:
                if row.similarity < least or len(hits) == count:
                    break
                if any(different_bits(row.hash, other) <= self.config.same_bits for other in hashes):
                    continue
                if any(hit.picture.id == row.id for hit in hits):  # two updates at once may have added it twice
                    continue
                path = self._file(row)
                if path is None:
                    continue
                hits.append(self._hit(row, path))
                hashes.append(row.hash)
            exhausted = len(rows) < look or (rows and rows[-1].similarity < least)
            if len(hits) == count or exhausted or look >= _MOST_LOOKED_AT:
                return hits
            look *= 4

    def _hit(self, row: Row, path: Path) -> Hit:
        words = row.words
        picture = Picture(
            id=row.id,
            path=str(path),
            caption=words.captions[0] if words.captions else ", ".join(words.tags),
            attribution=words.attribution or self.config.attribution,
            licence=words.licence or self.config.licence,
            source=words.source,
        )
        return Hit(picture=picture, similarity=row.similarity, tags=words.tags)

    def _file(self, row: Row) -> Path | None:
        """A file with a picture; None if it is no longer the one that was indexed."""
        state = self.pool.state(row.id)
        if state is None:
            self.stale[row.id] = "has gone since it was indexed"
        elif state != (row.known.size, row.known.time):
            self.stale[row.id] = "has changed since it was indexed"
        else:
            try:
                return self.pool.file(row.id)
            except MediaError as error:
                self.stale[row.id] = f"cannot be taken out of its container ({error})"
        return None

    @staticmethod
    def _differs(known: Known | None, size: int, time: int, words: Words | None) -> bool:
        digest = _NOTHING_LISTED if words is None else words.digest
        return known is None or (known.size, known.time, known.digest) != (size, time, digest)

    def _read(
        self, names: Sequence[str], files: dict[str, State], words: dict[str, Words]
    ) -> Iterator[tuple[int, list[Row]]]:
        """Rows of pictures, a batch at a time, each with the number of pictures that are through."""
        contents, through = self.pool.contents(names), 0
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            while batch := list(islice(contents, _BATCH)):
                read = list(pool.map(lambda one: self._look(one, words.get(one.name)), batch))
                vectors = self._vectors(read)
                rows = []
                for content, one, vector in zip(batch, read, vectors, strict=True):
                    size, time = files[content.name]
                    problem = one.problem or ("" if vector is not None else _WORDLESS)
                    digest = words.get(content.name, Words()).digest
                    known = Known(size=size, time=time, digest=digest, problem=problem)
                    rows.append(Row(id=content.name, known=known, words=one.words, hash=one.hash, vector=vector))
                through += len(batch)
                yield through, rows

    def _look(self, content: Content, listed: Words | None) -> _Read:
        """Opens one picture."""
        source = content.picture
        words = (listed or Words()).or_else(beside(source) if isinstance(source, Path) else content.words)
        if content.problem:
            return _Read(words=words, problem=content.problem)
        try:
            image = open_image(source)
            with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as opened:
                words = words.or_else(inside(opened))
        except (MediaError, OSError) as error:
            return _Read(words=words, problem=str(error).replace(f"{describe(source)} ", "", 1))
        words = words.or_else(of_name(content.title))
        if min(image.size) < self.config.shortest_side:
            width, height = image.size
            return _Read(
                words=words, problem=f"{width} x {height} pixels: a side is shorter than {self.config.shortest_side}"
            )
        return _Read(words=words, hash=perceptual_hash(image), image=image if self.encoder.sees else None)

    def _vectors(self, read: Sequence[_Read]) -> list[Vectors | None]:
        """A unit vector of each picture; None where it has none."""
        found: list[Vectors | None] = [None] * len(read)
        usable = [place for place, one in enumerate(read) if not one.problem]
        if self.encoder.sees:
            images = [image for place in usable if (image := read[place].image) is not None]
            for place, vector in zip(usable, self.encoder.pictures(images), strict=True):
                found[place] = vector
            return found
        texts = [(place, text) for place in usable for text in read[place].words.texts]
        if texts:
            encoded = self.encoder.texts([text for _, text in texts])
            for place in {place for place, _ in texts}:
                own = encoded[[number for number, (owner, _) in enumerate(texts) if owner == place]].mean(axis=0)
                found[place] = own / max(float(np.linalg.norm(own)), 1e-12)
        return found


_NOTHING_LISTED = Words().digest
_WORDLESS = "no caption, tags or telling name"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """One picture as it was read; ``image`` only for an encoder that sees."""

    words: Words
    problem: str = ""
    hash: int | None = None
    image: Image.Image | None = None


def _place(source: Path) -> Path:
    mark = hashlib.sha256(str(source).encode()).hexdigest()[:12]
    return cache_directory() / "galleries" / f"{source.name or 'root'}-{mark}"


def open_gallery(
    source: Path | str,
    *,
    encoder: str | Path = "multilingual",
    index: Path | None = None,
    config: GalleryConfig | None = None,
    say: Say = say_on_stderr,
) -> FolderGallery:
    """A gallery with an encoder by its name; call `FolderGallery.update` before the first search.

    Args:
        source: As `vedere.compose.pool.Pool`.
        encoder: As `vedere.compose.encoders.open_encoder`.
        index: Folder of the index; None: below the cache folder.
        config: What is taken and given.
        say: Receives a line before a download.

    Raises:
        VedereError: as `FolderGallery` and `vedere.compose.encoders.open_encoder`.
    """
    return FolderGallery(source, open_encoder(encoder, say), index=index, config=config)
