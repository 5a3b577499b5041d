"""A checkpoint is never in memory twice: the benchmark's measurement on a smaller model, every layout and conversion."""

from benchmark_runs import json_of


def test_peak_memory_is_the_weights_and_a_tenth():
    cases = json_of("loading", "--megabytes", 200, "--shards", 3, "--json")
    assert len(cases) == 6
    for name, case in cases.items():
        assert case["shards"] >= 3, name
        assert case["bytes"] > 1.5e8, name
        assert 0.9 < case["peak_share"] <= 1.1, f"{name}: {case}"
