"""The published numbers, and the colours of methods."""

from analyze.report.literature import PUBLISHED_MAPS, PUBLISHED_RETURNS, paper_number
from analyze.report.names import PolicyName, method_styles


def test_the_papers_numbers_are_those_of_its_tables():
    freeway = [paper_number("Freeway", m, "sparsity", k) for k in ("kmap", "hmap") for m in ("ddqn", "sa_ddqn")]
    assert [one.printed for one in freeway if one] == ["53.7272", "20.4641", "83.9999", "83.91587"]
    assert paper_number("Freeway", "ddqn_continued", "sparsity", "kmap") is None
    assert paper_number("Breakout", "ddqn", "sparsity", "kmap") is None
    sparsities = [one for one in PUBLISHED_MAPS if one.metric == "sparsity"]
    assert len(sparsities) == 16
    assert all(1 <= one.value <= 84 for one in sparsities)
    rates = [one.value for one in PUBLISHED_RETURNS if one.metric == "certified_rate"]
    assert len(rates) == 12
    assert all(0 <= rate <= 1 for rate in rates)


def test_methods_keep_their_colours_whatever_others_there_are():
    names = [PolicyName(method) for method in ("sa_ddqn", "ddqn", "x", "y", "sa_ddqn_ibp", "ddqn_continued")]
    names.append(PolicyName("sa_ddqn", "kappa=0.02"))
    many = method_styles(names)
    assert many[names[0]] == method_styles(names[:1])[names[0]]
    assert len(set(many.values())) == 7
