"""Video-MME (arXiv 2405.21075) whole: questions and media on the disk, inputs, prompts, answers, tables, comparisons; and the
tools that a team needs to make such a set of its own: certificate lengths, balance, answerability from text alone.

`taxonomy` holds the published words and counts, `questions` and `media` read and check files, `inputs` chooses
frames, subtitles and sound, `prompts` the words around them, `outcomes` counts, `results` is
the official output file. `v2` scores Video-MME-v2 (arXiv 2604.05015).
"""

from vedere.evals.video_mme.scorer import score

__all__ = ["score"]
