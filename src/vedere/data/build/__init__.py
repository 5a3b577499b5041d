"""The open training corpora: pictures drawn by program or taken from permissively licensed sources, with exact facts."""

from __future__ import annotations

from vedere.data.build.blind import Score, blind_accuracy, read_records, score_answers
from vedere.data.build.corpus import CorpusSummary, build_corpus

__all__ = ["CorpusSummary", "Score", "blind_accuracy", "build_corpus", "read_records", "score_answers"]
