"""Laws of the stream: permutations, every place once over all shards, exact continuation, shares by weight."""

import itertools
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedere.data.mixture import Draw, Mixture, Part, seed_of, shuffled
from vedere.data.sample import Sample
from vedere.errors import ConfigError, TrainingError


class Numbers:
    """Records that are their own index."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        assert 0 <= index < self.count
        return Sample(name=str(index), conversation=())


def parts(*sizes, **keywords):
    return [Part(name=f"set{k}", records=Numbers(size), **keywords) for k, size in enumerate(sizes)]


def draws(mixture, count=None, state=None):
    return list(itertools.islice(mixture.stream(state), count))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 400), key=st.integers(0, 2**64 - 1))
def test_shuffled_is_a_permutation(size, key):
    assert sorted(shuffled(k, size, key) for k in range(size)) == list(range(size))


def test_shuffled_is_even():
    """All 24 orders of 4 places come about equally often; each place of 100 is equally likely to come first."""
    orders = Counter(tuple(shuffled(k, 4, seed_of(seed)) for k in range(4)) for seed in range(4800))
    assert len(orders) == 24
    assert sum((count - 200) ** 2 / 200 for count in orders.values()) < 60  # chi-square, 23 degrees: p = 4e-5
    firsts = Counter(shuffled(0, 100, seed_of(seed)) for seed in range(10000))
    assert sum((firsts[k] - 100) ** 2 / 100 for k in range(100)) < 170  # 99 degrees: p = 1e-5


def test_the_order_is_the_same_on_every_machine():
    assert seed_of("order", 1, "a") == 0xDA1EB3F28CAEC757
    assert [shuffled(k, 10, seed_of("order", 1, "a")) for k in range(10)] == [8, 2, 3, 1, 9, 5, 4, 0, 6, 7]
    assert seed_of("a", 1) != seed_of("a", "1")


mixtures = st.tuples(
    st.lists(st.tuples(st.integers(1, 12), st.sampled_from([0.5, 1.0, 1.7, 3.0])), min_size=1, max_size=4),
    st.integers(0, 5),
    st.booleans(),
)


def build(spec, **keywords):
    sets, seed, shuffle = spec
    made = [
        Part(name=f"s{k}", records=Numbers(size), repeat=max(repeat, 1 / size)) for k, (size, repeat) in enumerate(sets)
    ]
    return Mixture(made, seed=seed, shuffle=shuffle, **keywords)


@settings(max_examples=60, deadline=None)
@given(spec=mixtures, epochs=st.integers(1, 3), shards=st.integers(1, 5))
def test_all_shards_together_visit_each_place_of_each_epoch_once(spec, epochs, shards):
    seen = Counter()
    for shard in range(shards):
        seen.update(draw for draw, _ in build(spec, epochs=epochs, shard=(shard, shards)).stream())
    whole = build(spec)
    expected = {
        Draw(dataset, epoch, place)
        for dataset, part in enumerate(whole.parts)
        for epoch in range(epochs)
        for place in range(part.places)
    }
    assert seen == Counter(expected)


@settings(max_examples=60, deadline=None)
@given(
    spec=mixtures, epochs=st.sampled_from([None, 2]), cut=st.integers(0, 40), shard=st.sampled_from([(0, 1), (1, 3)])
)
def test_continuing_from_any_state_equals_never_stopping(spec, epochs, cut, shard):
    whole = draws(build(spec, epochs=epochs, shard=shard), 60)
    cut = min(cut, len(whole) - 1)
    if cut < 0:
        return
    state = json.loads(json.dumps(whole[cut][1]))
    assert draws(build(spec, epochs=epochs, shard=shard), 60 - cut - 1, state) == whole[cut + 1 :]


def test_epochs_differ_and_seeds_differ():
    def order(seed, epoch):
        mixture = Mixture(parts(50), seed=seed, epochs=3)
        return [draw.place for draw, _ in mixture.stream() if draw.epoch == epoch]

    assert len({tuple(order(seed, epoch)) for seed in (0, 1) for epoch in range(3)}) == 6


def test_without_shuffle_each_data_set_keeps_its_order():
    mixture = Mixture(parts(7, 4), shuffle=False, epochs=2)
    seen = [draw for draw, _ in mixture.stream()]
    for dataset, size in ((0, 7), (1, 4)):
        places = [(draw.epoch, draw.place) for draw in seen if draw.dataset == dataset]
        assert places == [(epoch, place) for epoch in range(2) for place in range(size)]


@pytest.mark.parametrize(
    ("repeat", "visits"),
    [(0.3, [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]), (1.0, [1] * 10), (2.0, [2] * 10), (2.5, [3] * 5 + [2] * 5)],
)
def test_repeats_keep_a_prefix_or_add_copies(repeat, visits):
    mixture = Mixture([Part(name="a", records=Numbers(10), repeat=repeat)], epochs=1)
    found = Counter(int(mixture.sample(draw).name) for draw, _ in mixture.stream())
    assert [found[index] for index in range(10)] == visits


def test_places_are_counted_without_rounding_errors():
    assert Part(name="a", records=Numbers(100), repeat=0.29).places == 29


def test_draws_follow_the_weights():
    sets = [
        Part(name="a", records=Numbers(10), weight=1.0),
        Part(name="b", records=Numbers(1000), weight=3.0),
    ]
    counts = Counter(draw.dataset for draw, _ in draws(Mixture(sets), 8000))
    assert abs(counts[1] / 8000 - 0.75) < 0.02  # four standard deviations
    counts = Counter(draw.dataset for draw, _ in draws(Mixture(parts(100, 300)), 8000))
    assert abs(counts[1] / 8000 - 0.75) < 0.02


def test_random_numbers_belong_to_a_place():
    mixture = Mixture(parts(3, repeat=2.0), seed=1)
    again = Mixture(parts(3, repeat=2.0), seed=1, shard=(1, 4))
    values = {mixture.rng(Draw(0, epoch, place)).random() for epoch in range(2) for place in range(6)}
    assert len(values) == 12  # repeats and epochs of a record differ
    assert {again.rng(Draw(0, epoch, place)).random() for epoch in range(2) for place in range(6)} == values
    assert Mixture(parts(3), seed=2).rng(Draw(0, 0, 0)).random() not in values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"parts": []}, "a mixture of no data sets"),
        ({"parts": parts(2) + parts(3)}, "two data sets are named 'set0'"),
        ({"parts": parts(2), "shard": (2, 2)}, "shard 2 of 2; expected 0 <= shard < count"),
        ({"parts": parts(2), "epochs": 0}, "epochs 0; expected at least 1"),
    ],
)
def test_impossible_mixtures(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Mixture(**arguments)


def test_impossible_parts():
    with pytest.raises(ConfigError, match=r"repeat 0.01 of 10 records leaves none; use at least 0.1"):
        parts(10, repeat=0.01)
    with pytest.raises(ConfigError, match="weight -1; expected a number > 0"):
        parts(10, weight=-1)


def test_a_state_of_another_mixture_is_refused():
    with pytest.raises(TrainingError, match="knows 1 data sets, the mixture has 2"):
        next(Mixture(parts(2, 3)).stream({"step": 3, "drawn": [3]}))
