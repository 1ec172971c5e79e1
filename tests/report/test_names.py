"""What things are called in tables and figures, and the published numbers."""

from analyze.report.literature import PUBLISHED_MAPS, PUBLISHED_RETURNS, paper_number
from analyze.report.names import attack_label, epsilon_label, method_label, method_styles, metric_name, policy_label


def test_the_papers_numbers_are_those_of_its_tables():
    freeway = [paper_number("Freeway", m, f"{k}_sparsity") for k in ("kmap", "hmap") for m in ("ddqn", "sa_ddqn")]
    assert [one.printed for one in freeway if one] == ["53.7272", "20.4641", "83.9999", "83.91587"]
    assert paper_number("Freeway", "ddqn_continued", "kmap_sparsity") is None
    assert paper_number("Breakout", "ddqn", "kmap_sparsity") is None
    sparsities = [one for one in PUBLISHED_MAPS if one.metric.endswith("sparsity")]
    assert len(sparsities) == 16
    assert all(1 <= one.value <= 84 for one in sparsities)
    rates = [one.value for one in PUBLISHED_RETURNS if one.metric == "certified_rate"]
    assert len(rates) == 12
    assert all(0 <= rate <= 1 for rate in rates)


def test_labels():
    assert epsilon_label(3 / 255) == "3/255"
    assert epsilon_label(0.01) == "0.01"
    assert attack_label("pgd-10", 1 / 255) == "PGD-10, 1/255"
    assert attack_label("constant:UP") == "always UP"
    assert attack_label("greedy_worst_case", 3 / 255) == "worst case, 3/255"
    assert policy_label("shuffled_weights (sa_ddqn seed 1)", 2) == "shuffled SA-DDQN seed 1 draw 2"
    assert policy_label("random_weights", 0) == "random weights draw 0"
    assert policy_label("sa_ddqn (kappa=0.02)", 1) == "SA-DDQN (kappa=0.02) seed 1"
    assert method_label("sa_ddqn (kappa=0.02)") == "SA-DDQN (adversarial) (kappa=0.02)"
    assert metric_name("something_new").title == "something new"


def test_methods_keep_their_colours_whatever_others_there_are():
    alone = method_styles(["sa_ddqn"])
    many = method_styles(["sa_ddqn", "ddqn", "x", "y", "sa_ddqn_ibp", "ddqn_continued"])
    assert many["sa_ddqn"] == alone["sa_ddqn"]
    assert len(set(many.values())) == 6
