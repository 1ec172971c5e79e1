"""The published numbers, and the colours of methods."""

from analyze.report.literature import PUBLISHED_MAPS, PUBLISHED_RETURNS, paper_number
from analyze.report.names import PolicyName, method_styles


def test_the_papers_numbers_are_those_of_its_tables():
    freeway = [paper_number("Freeway", m, "sparsity", k) for k in ("kmap", "hmap") for m in ("ddqn", "sa_ddqn")]
    assert [one.printed for one in freeway if one] == ["53.7272", "20.4641", "83.9999", "83.91587"]
    assert paper_number("Freeway", "ddqn_continued", "sparsity", "kmap") is None
    sparsities = [float(one.printed) for one in PUBLISHED_MAPS if one.metric == "sparsity"]
    rates = [float(one.printed) for one in PUBLISHED_RETURNS if one.metric == "certified_rate"]
    assert [len([x for x in sparsities if 1 <= x <= 84]), len([x for x in rates if 0 <= x <= 1])] == [16, 12]


def test_methods_keep_their_colours_whatever_others_there_are():
    methods = ("sa_ddqn", "ddqn", "x", "y", "sa_ddqn_ibp", "ddqn_continued")
    names = [*map(PolicyName, methods), PolicyName("sa_ddqn", "kappa=0.02")]
    many = method_styles(names)
    assert many[names[0]] == method_styles(names[:1])[names[0]]
    assert len(set(many.values())) == 7
