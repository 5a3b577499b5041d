"""Pictures by key: only what was shown, only what is a picture, only from the folders of the shelf."""

import io

import pytest
from desk_studio import desk, written
from PIL import Image

from vedere.compose.article import Article, Document, Illustration, Paragraph, Picture
from vedere.errors import MediaError
from vedere.serve.shelf import WIDTHS, Shelf


@pytest.fixture
def large(tmp_path):
    path = tmp_path / "large.png"
    Image.effect_noise((2000, 1000), 40).convert("RGB").save(path)
    return Picture(id="large", path=str(path))


def test_only_pictures_that_were_shown_are_given_out(tmp_path, large):
    shelf = Shelf(tmp_path)
    assert shelf.image("0" * 40, 320) is None
    key = shelf.key(large)
    assert shelf.key(large) == key
    assert Shelf(tmp_path).key(large) != key  # another process, another secret
    assert shelf.image(key[:-1], 320) is None


@pytest.mark.parametrize(("asked", "given"), [(1, WIDTHS[0]), (320, WIDTHS[0]), (321, WIDTHS[1]), (9999, WIDTHS[1])])
def test_pictures_come_as_small_as_they_are_shown_and_in_two_sizes_only(tmp_path, large, asked, given):
    shelf = Shelf(tmp_path)
    image = Image.open(io.BytesIO(shelf.image(shelf.key(large), asked)))
    assert (image.format, image.size) == ("JPEG", (given, given // 2))


def test_a_picture_that_is_gone_is_an_error_that_says_so(tmp_path):
    shelf = Shelf(tmp_path)
    with pytest.raises(MediaError, match="does not exist"):
        shelf.image(shelf.key(Picture(id="x", path=str(tmp_path / "x.png"))), 320)


def test_the_cache_has_an_end(tmp_path, monkeypatch, large):
    monkeypatch.setattr("vedere.serve.shelf._KEPT_BYTES", 1)
    shelf = Shelf(tmp_path)
    assert shelf.image(shelf.key(large), 320) == shelf.image(shelf.key(large), 320)
    assert not shelf._ready


def test_brought_pictures_are_kept_by_content(tmp_path, large):
    shelf = Shelf(tmp_path / "uploads")
    first = shelf.keep(large.path)
    again = tmp_path / "other name.PNG"
    again.write_bytes((tmp_path / "large.png").read_bytes())
    assert shelf.keep(again).id == first.id
    assert len(list((tmp_path / "uploads").iterdir())) == 1
    assert shelf.holds(first)


@pytest.mark.parametrize("content", [b"", b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_picture_is_not_kept(tmp_path, content):
    path = tmp_path / "x.png"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=r"'x\.png' is no picture that can be used"):
        Shelf(tmp_path / "uploads").keep(path)
    assert not (tmp_path / "uploads").exists()


def test_an_opened_article_shows_no_other_file_of_the_computer(tmp_path):
    """A saved file may name any path; exports put pictures into what is downloaded."""
    at = written(tmp_path)
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (tmp_path / "gallery" / "link.png").symlink_to(tmp_path / "secret.png")
    inside = at.article.at(0).illustration.candidates[0]
    outside = [
        Picture(id=str(number), path=path)
        for number, path in enumerate(
            [
                str(tmp_path / "secret.png"),
                str(tmp_path / "gallery" / ".." / "secret.png"),
                str(tmp_path / "gallery" / "link.png"),
                str(tmp_path / "gallery"),
                "relative.png",
                "null\0byte",
                "",
            ]
        )
    ]
    spot = Illustration(caption="c", candidates=(outside[0], inside, *outside[1:]), selected=0)
    kept = Illustration(caption="d", candidates=(outside[0], inside), selected=1)
    article = Article(
        title="t", paragraphs=(Paragraph(text="a", illustration=spot), Paragraph(text="b", illustration=kept))
    )
    Document.new(article).save(tmp_path / "a.json")
    other = desk(tmp_path)
    assert other.open(tmp_path / "a.json") == len(outside)
    first, second = (spot for _, spot in other.article.spots())
    assert (first.candidates, first.selected, first.caption) == ((inside,), None, "c")
    assert first.note == "its picture is not on this computer"
    assert second.picture == inside
