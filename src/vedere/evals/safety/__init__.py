"""Safety evaluation: does a model miss a risk, see it, refuse it, or refuse what is harmless? After MIS (arXiv 2501.18533).

Two pictures and a question, harmless alone, risky together. A model answers, a judge says what the answer saw and whether it
is safe, and four rates follow: ASR (attack success), HR (hallucination), RSR (reasoning success), RR (refusal). How often
*harmless* requests are refused stands beside them always, because a model that refuses everything has an ASR of 0.

Questions and answers of these sets stay in one place: the run's own log, a file that only its owner can read. Console,
report, caches and errors show id, category and label, nothing else. Reading a set needs an explicit flag.

``records`` what a request is · ``mis``, ``neighbours``, ``mssbench`` and ``siuo`` read the published sets · ``forms`` how a
question with two pictures is put to a model · ``rubrics`` what a judge is asked and how its answer is read · ``judges`` who
judges · ``log`` the private file · ``run`` the evaluation · ``rates`` the figures · ``chain`` signs of perception, risk and
safe response in an answer.
"""
