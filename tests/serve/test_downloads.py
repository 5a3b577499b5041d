"""Files behind links: made of the state in force, gone when newer ones came, errors before a link is given."""

import json
import zipfile
from pathlib import Path

import pytest
from desk_studio import desk, written

from vedere.compose.article import Document
from vedere.errors import ConfigError, MediaError
from vedere.serve.downloads import KINDS, Downloads


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_written_and_found(tmp_path, kind):
    at, downloads = written(tmp_path), Downloads(tmp_path / "made")
    link, name = downloads.make(KINDS[kind], at)
    path, found = downloads.find(link.removeprefix("downloads/"))
    assert (found.name, path.stat().st_size > 100) == (name, True)
    assert len(list((tmp_path / "made").iterdir())) == 1


def test_contents(tmp_path):
    at, downloads = written(tmp_path), Downloads(tmp_path / "made")

    def made(kind):
        return downloads.find(downloads.make(KINDS[kind], at)[0].removeprefix("downloads/"))[0]

    with zipfile.ZipFile(made("markdown")) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        assert sorted(names) == ["article/article.md", "article/picture-1.png", "article/picture-2.png"]
    data = json.loads(made("json").read_text("utf-8"))
    assert data["credits"] == ["A. Person"]
    assert Document.load(made("saved")).article == at.article
    assert made("html").read_text("utf-8").count("data:image/png;base64,") == 2


def test_links_cannot_be_guessed_and_old_ones_go(tmp_path, monkeypatch):
    monkeypatch.setattr("vedere.serve.downloads.KEPT", 2)
    at, downloads = written(tmp_path), Downloads(tmp_path / "made")
    links = [downloads.make(KINDS["saved"], at)[0].removeprefix("downloads/") for _ in range(3)]
    assert len(set(links)) == 3
    assert min(map(len, links)) == 40
    assert downloads.find(links[0]) is None
    assert downloads.find("../article") is None
    assert len(list((tmp_path / "made").iterdir())) == 2


def test_errors_come_before_a_link(tmp_path):
    downloads = Downloads(tmp_path / "made")
    with pytest.raises(ConfigError, match="there is no article yet"):
        downloads.make(KINDS["html"], desk(tmp_path))
    at = written(tmp_path)
    Path(at.article.pictures()[0].path).unlink()
    with pytest.raises(MediaError, match="cannot be read"):
        downloads.make(KINDS["html"], at)
