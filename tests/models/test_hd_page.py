"""The benchmark of a 4K page on a narrow model: as much memory as the plan says, and no mask of prompt x prompt."""

from benchmark_runs import json_of


def test_a_page_takes_the_memory_that_the_plan_says():
    sizes = ("--tiny", "--layers", 2, "--tower-layers", 2, "--dtype", "fp32", "--device", "cpu")
    pages = json_of("hd_page", *sizes, "--json")["pages"]
    assert [page["grid"] for page in pages] == [[1, 55], [11, 5]]
    for page in pages:
        assert page["views"] == 56
        assert page["squares"] == 0
        assert 0.9 < page["ratio"] < 1.1
