import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedere.errors import RecordError
from vedere.evals.intervals import bootstrap_interval, compare, mcnemar, mean_interval, share, standard_error, wilson

credits_ = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40)
pairs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=60)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_lies_in_0_to_1_holds_the_share_and_mirrors(a, b):
    count, n = min(a, b), max(a, b)
    low, high = wilson(count, n)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= count / n <= high
        assert high - low < 1
        mirrored = wilson(n - count, n)
        assert (1 - mirrored[1], 1 - mirrored[0]) == pytest.approx((low, high), abs=1e-12)


def test_wilson_solves_its_equation():
    """Each end p is where the share stands z standard errors of p away."""
    for count, n in [(1, 10), (5, 10), (30, 100), (99, 100), (510, 2185)]:
        for end in wilson(count, n):
            assert abs(count / n - end) == pytest.approx(1.959963984540054 * math.sqrt(end * (1 - end) / n))


def test_wilson_known_values_and_bad_counts():
    assert wilson(0, 0) == (0, 1)
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)
    with pytest.raises(RecordError, match="11 of 10"):
        wilson(11, 10)


def test_wilson_covers_about_95_percent():
    """Exact coverage by the binomial distribution, averaged over shares; no drawing."""
    n, shares = 60, [k / 40 for k in range(1, 40)]
    total = 0.0
    for p in shares:
        inside = [k for k in range(n + 1) if wilson(k, n)[0] <= p <= wilson(k, n)[1]]
        total += sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in inside)
    assert 0.94 < total / len(shares) < 0.965


@given(st.lists(st.booleans(), max_size=60))
def test_a_share_with_every_question_its_own_cluster_is_wilsons(flags):
    plain, clustered = share(flags), share(flags, list(range(len(flags))))
    assert plain == clustered
    assert (plain.low, plain.high) == wilson(sum(flags), len(flags))


@given(pairs)
def test_a_clustered_share_holds_its_value_and_is_never_narrower_than_possible(rows):
    flags, clusters = [bool(a) for a, _, _ in rows], [c for _, _, c in rows]
    found = share(flags, clusters)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.clusters == len(set(clusters))
    assert found.high - found.low >= wilson(sum(flags), len(flags))[1] - wilson(sum(flags), len(flags))[0] - 1e-9


@given(credits_, st.integers(2, 5))
def test_copies_of_questions_add_nothing_when_they_are_clusters(values, times):
    """k copies of each question, clustered, have the standard error of the questions themselves."""
    copies = [value for value in values for _ in range(times)]
    names = [place for place in range(len(values)) for _ in range(times)]
    assert standard_error(copies, names) == pytest.approx(standard_error(values), abs=1e-12)


@given(credits_)
def test_single_clusters_give_the_plain_standard_error(values):
    n, middle = len(values), sum(values) / len(values)
    plain = math.sqrt(sum((v - middle) ** 2 for v in values) / n / (n - 1)) if n > 1 else 0.0
    assert standard_error(values) == pytest.approx(plain, abs=1e-12)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_symmetric_and_a_probability(a, b):
    assert mcnemar(a, b) == mcnemar(b, a)
    assert 0 < mcnemar(a, b) <= 1
    assert mcnemar(a, a) == 1
    assert mcnemar(0, b) == pytest.approx(min(1.0, 2 * 0.5**b))


@given(pairs)
def test_comparison_swaps_its_sign_with_the_models(rows):
    first, second, clusters = zip(*((float(a), float(b), c) for a, b, c in rows), strict=True)
    there, back = compare(first, second, clusters, draws=50), compare(second, first, clusters, draws=50)
    assert there.difference.value == pytest.approx(-back.difference.value)
    assert there.difference.low == pytest.approx(-back.difference.high)
    assert (there.only_first, there.only_second, there.p) == (back.only_second, back.only_first, back.p)
    assert there.difference.value == pytest.approx((there.only_second - there.only_first) / len(rows))
    assert there.bootstrap == pytest.approx(tuple(-end for end in reversed(back.bootstrap)), abs=1e-9)


@given(pairs)
def test_a_model_compared_with_itself_differs_by_nothing(rows):
    values = [float(a) for a, _, _ in rows]
    same = compare(values, values, draws=20)
    ends = (0, 0) if len(values) > 1 else (-1, 1)
    assert (same.difference.value, same.difference.low, same.difference.high) == (0, *ends)
    assert same.bootstrap == ends
    assert same.p == 1


def test_the_bootstrap_is_a_function_of_its_seed_and_near_the_normal_interval():
    rng = random.Random(3)
    values = [float(rng.random() < 0.3) - float(rng.random() < 0.2) for _ in range(400)]
    clusters = [place // 2 for place in range(400)]
    drawn = bootstrap_interval(values, clusters, draws=4000)
    assert drawn == bootstrap_interval(values, clusters, draws=4000)
    assert drawn != bootstrap_interval(values, clusters, draws=4000, seed=1)
    normal = mean_interval(values, clusters)
    assert drawn == pytest.approx((normal.low, normal.high), abs=0.006)


def test_a_single_cluster_says_nothing_about_a_difference():
    found = compare([0.0] * 6, [1.0] * 6, ["clip"] * 6)
    assert found.difference.value == 1
    assert (found.difference.low, found.difference.high) == (-1, 1)
    assert found.bootstrap == (-1, 1)
    assert share([True] * 6, ["clip"] * 6).low < 0.25


def test_clusters_widen_the_comparison_where_questions_repeat_each_other():
    first = [0.0, 1.0] * 20
    second = [1.0, 1.0] * 20
    clusters = [place // 10 for place in range(40)]
    loose = compare(first, second)
    tight = compare(first, second, clusters)
    assert tight.difference.low > loose.difference.low  # every cluster has the same difference
    assert loose.difference.clusters == 40
    assert tight.difference.clusters == 4


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: compare([], []), "at least one"),
        (lambda: compare([1.0], [1.0, 0.0]), "1 and 2 credits"),
        (lambda: standard_error([1.0, 0.0], ["a"]), "1 clusters for 2"),
        (lambda: bootstrap_interval([]), "0 values"),
        (lambda: bootstrap_interval([1.0], draws=0), "0 draws"),
    ],
)
def test_bad_input_is_told(call, match):
    with pytest.raises(RecordError, match=match):
        call()
