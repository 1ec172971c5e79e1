"""Labels in tables and figures, and the published numbers."""

from analyze.report.literature import PUBLISHED_MAPS, PUBLISHED_RETURNS, paper_number
from analyze.report.names import Condition, PolicyName, StatesName, method_styles, metric_name


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


def test_labels():
    assert Condition("clean", None, 1 / 255).label == "clean, proofs at ε = 1/255"
    assert PolicyName("constant_action", "UP", "run_seed=1").title == "always UP (run_seed=1)"
    shuffled = PolicyName("shuffled_weights", draw=2, source_method="sa_ddqn", source_seed=1)
    assert (shuffled.label, shuffled.group.title) == ("shuffled SA-DDQN seed 1 draw 2", "shuffled SA-DDQN seed 1")
    assert PolicyName("random_weights", source_seed=1).title == "random weights on states of seed 1"
    variant = PolicyName("sa_ddqn", "kappa=0.02", seed=1)
    assert (variant.label, variant.title) == ("SA-DDQN (kappa=0.02) seed 1", "SA-DDQN (adversarial) (kappa=0.02)")
    assert StatesName("file", "mine.npz").label == "states of mine.npz"
    assert metric_name("something_new").title == "something new"


def test_conditions_are_ordered_from_weak_to_strong():
    ordered = [
        Condition("clean"), Condition("noise", None, 0.1), Condition("fgsm", None, 0.1), Condition("pgd", 9, 0.1),
        Condition("pgd", 10, 0.1), Condition("greedy_worst_case", None, 0.1), Condition("noise", None, 0.2),
    ]  # fmt: skip
    assert sorted(set(ordered)) == ordered


def test_methods_keep_their_colours_whatever_others_there_are():
    names = [PolicyName(method) for method in ("sa_ddqn", "ddqn", "x", "y", "sa_ddqn_ibp", "ddqn_continued")]
    names.append(PolicyName("sa_ddqn", "kappa=0.02"))
    many = method_styles(names)
    assert many[names[0]] == method_styles(names[:1])[names[0]]
    assert len(set(many.values())) == 7
