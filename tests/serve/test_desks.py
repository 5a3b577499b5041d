"""Desks are found again, each by its own token only."""

import pytest
from desk_studio import chosen, desk, texts

from vedere.compose.prompts import Brief
from vedere.errors import CheckpointError
from vedere.serve.desks import Desks


@pytest.fixture
def studio(tmp_path):
    return desk(tmp_path).studio


def test_every_tab_has_its_own_desk_and_the_oldest_goes_from_memory(tmp_path, studio, monkeypatch):
    monkeypatch.setattr("vedere.serve.desks.MOST_DESKS", 2)
    desks = Desks(studio, tmp_path / "articles")
    first = desks.at("a")
    assert desks.at("a") is first
    assert desks.at("b") is not first
    desks.at("c")
    assert desks.at("a") is not first


def test_an_article_is_found_again_when_the_server_begins_anew(tmp_path, studio):
    desks = Desks(studio, tmp_path / "articles")
    at = desks.at("token")
    desks.keep(at)
    assert not (tmp_path / "articles").exists()  # nothing to keep
    list(at.generate(Brief(title="A title")))
    at.select(1)
    at.commit("Changed.")
    at.undo()
    desks.keep(at)
    (file,) = (tmp_path / "articles").iterdir()
    assert "token" not in file.name
    again = Desks(studio, tmp_path / "articles").at("token")
    assert (again.article, chosen(again)) == (at.article, ["1", "4"])
    again.redo()
    assert texts(again)[1] == "Changed."
    assert Desks(studio, tmp_path / "articles").at("other").article is None


def test_only_changes_are_written(tmp_path, studio):
    desks = Desks(studio, tmp_path / "articles")
    at = desks.at("token")
    list(at.generate(Brief(title="A title")))
    desks.keep(at)
    (file,) = (tmp_path / "articles").iterdir()
    file.unlink()
    desks.keep(at)
    assert not file.exists()
    at.select(-1)
    at.commit("Other")
    desks.keep(at)
    assert file.exists()
    file.unlink()
    at.undo()  # which state is in force is a change, too
    desks.keep(at)
    assert file.exists()


def test_a_damaged_file_is_passed_over_and_said(tmp_path, studio, capsys):
    desks = Desks(studio, tmp_path / "articles")
    at = desks.at("token")
    list(at.generate(Brief(title="A title")))
    desks.keep(at)
    (file,) = (tmp_path / "articles").iterdir()
    file.write_text("{")
    assert Desks(studio, tmp_path / "articles").at("token").article is None
    assert "a kept article was passed over" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_an_error_and_the_article_stays(tmp_path, studio):
    (tmp_path / "articles").write_text("a file")
    desks = Desks(studio, tmp_path / "articles")
    at = desks.at("token")
    list(at.generate(Brief(title="A title")))
    with pytest.raises(CheckpointError):
        desks.keep(at)
    assert len(texts(at)) == 3
