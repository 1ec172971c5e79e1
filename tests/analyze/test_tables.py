"""Tables against text written by hand, and the numbers in them against the records they are from."""

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analyze.formats import Cell, Column, Table, format_number, print_table, to_csv, to_markdown
from analyze.latex import escape_latex, to_latex
from analyze.names import attack_label, epsilon_label, method_label, method_styles, metric_name, policy_label
from analyze.play_tables import action_table, other_table, q_gap_table, returns_table
from analyze.published import PUBLISHED_MAPS, PUBLISHED_RETURNS, paper_number
from analyze.tables import (
    control_table,
    entropy_table,
    grid_table,
    headline_temperature,
    measure_table,
    print_records,
    sparsity_table,
    table1,
)
from nrmap.records import Record

JACKKNIFE = "jackknife over 16 episodes, for this policy"


def map_record(method: str, seed: int, metric: str, value: float | None, **fields) -> Record:
    given_fields = {
        "states_from": "own",
        "num_states": 256,
        "episodes": 16,
        "policy_sha256": f"{method}{seed}",
        **fields,
    }
    return Record("Freeway", method, seed, metric, value, **given_fields)


SPARSITIES = [
    map_record("ddqn", 0, "kmap_sparsity", 41.98125, low=39.5, high=44.25, interval=JACKKNIFE),
    map_record("ddqn", 1, "kmap_sparsity", 44.5, low=40.0, high=49.0, interval=JACKKNIFE),
    map_record("sa_ddqn", 0, "kmap_sparsity", 12.25, low=10.5, high=14.0, interval=JACKKNIFE),
    map_record("sa_ddqn", 1, "kmap_sparsity", None, note="the map is 0 everywhere"),
    map_record("ddqn", 0, "hmap_sparsity", 83.9998766, temperature=1.0, note="too few episodes"),
    map_record("sa_ddqn", 0, "hmap_sparsity", 83.5, temperature=1.0, low=83.25, high=83.75, interval=JACKKNIFE),
    map_record("sa_ddqn", 0, "hmap_sparsity", 70.0, temperature=0.1),
    map_record("ddqn", 0, "kmap_sparsity", 20.0, num_states=64, item="prefix"),
]

TABLE1_MARKDOWN = """\
**Sparsity S = ‖M‖₁ / ‖M‖₂ of KMAP and HMAP (table 1 of the paper)**

| Game | States | N | T | Seed | S(K) DDQN (vanilla) | S(K) paper | S(K) SA-DDQN (adversarial) | S(K) paper | S(H) DDQN (vanilla) | S(H) paper | S(H) SA-DDQN (adversarial) | S(H) paper |
| --- | --- | ---: | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| Freeway | own | 256 | 1 | 0 | 41.98 [39.50, 44.25] | 53.7272 | 12.25 [10.50, 14.00] | 20.4641 | 83.999877<sup>1</sup> | 83.9999 | 83.500000 [83.250000, 83.750000] | 83.91587 |
| Freeway | own | 256 | 1 | 1 | 44.50 [40.00, 49.00] | 53.7272 | undefined<sup>2</sup> | 20.4641 | — | — | — | — |
| Freeway | own | 256 | 1 | 2 seeds | 43.24 (41.98 – 44.50) | 53.7272 | 12.25<sup>3</sup> | 20.4641 | 83.999877<sup>4</sup> | 83.9999 | 83.500000<sup>4</sup> | 83.91587 |

1. no interval: too few episodes
2. the map is 0 everywhere
3. over 1 of 2 seeds: undefined in 1, not measured in 0
4. over 1 of 2 seeds: undefined in 0, not measured in 1

Square brackets: 95% intervals (jackknife over 16 episodes, for this policy).

Rows of several seeds: the mean over seeds and, in round brackets, the smallest and the largest.
"""  # noqa: E501


def test_table1_in_markdown_is_the_expected_text():
    assert to_markdown(table1(SPARSITIES)) == TABLE1_MARKDOWN


def test_table1_does_not_depend_on_the_order_of_the_records():
    assert table1(SPARSITIES[::-1]) == table1(SPARSITIES)


def test_table1_as_latex_is_the_expected_text():
    assert to_latex(table1([SPARSITIES[2], SPARSITIES[5]])) == (
        r"""% \usepackage{booktabs,graphicx}
\begin{table*}
\centering
\caption{Sparsity S = $\|$M$\|$$_1$ / $\|$M$\|$$_2$ of KMAP and HMAP (table 1 of the paper)}
\label{tab:table1}
\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%
\begin{tabular}{llrllrrrr}
\toprule
\multicolumn{5}{c}{} & \multicolumn{2}{c}{$S(\mathcal{K})$} & \multicolumn{2}{c}{$S(\mathcal{H})$} \\
\cmidrule(lr){6-7} \cmidrule(lr){8-9}
Game & States & N & T & Seed & \shortstack{SA-DDQN\\(adversarial)} & paper & \shortstack{SA-DDQN\\(adversarial)} & paper \\
\midrule
Freeway & own & 256 & 1 & 0 & \shortstack[r]{12.25\\{\scriptsize {[}10.50, 14.00{]}}} & 20.4641 & \shortstack[r]{83.500000\\{\scriptsize {[}83.250000, 83.750000{]}}} & 83.91587 \\[2pt]
\bottomrule
\end{tabular}
}
\par\smallskip\parbox{\linewidth}{\footnotesize Square brackets: 95\% intervals (jackknife over 16 episodes, for this policy).}
\end{table*}
"""  # noqa: E501
    )


def test_table1_as_csv_gives_back_every_number():
    rows = list(csv.DictReader(io.StringIO(to_csv(table1(SPARSITIES)))))
    first, second, spread = rows
    assert (first["game"], first["states"], first["N"], first["T"], first["seed"]) == (
        "Freeway",
        "own",
        "256",
        "1.0",
        "0",
    )
    assert float(first["kmap_sparsity ddqn"]) == 41.98125
    assert float(first["kmap_sparsity ddqn low"]) == 39.5
    assert float(first["kmap_sparsity ddqn high"]) == 44.25
    assert float(first["kmap_sparsity ddqn paper"]) == 53.7272
    assert float(first["hmap_sparsity sa_ddqn"]) == 83.5
    assert second["kmap_sparsity sa_ddqn"] == ""
    assert second["kmap_sparsity sa_ddqn note"] == "the map is 0 everywhere"
    assert float(spread["kmap_sparsity ddqn"]) == (41.98125 + 44.5) / 2


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_csv_keeps_all_digits(values):
    column = Column("x", "x", digits=1, measured=True)
    text = to_csv(Table("t", "t", (column,), tuple((Cell(value, value, value),) for value in values)))
    assert [float(row["x low"]) for row in csv.DictReader(io.StringIO(text))] == values


def test_the_temperature_of_the_headline_is_that_of_most_maps_then_the_one_nearest_to_1():
    def at(*temperatures):
        return [map_record("ddqn", 0, "hmap_sparsity", 1.0, temperature=t) for t in temperatures]

    assert headline_temperature(at(0.1, 0.1, 1.0)) == 0.1
    assert headline_temperature(at(0.1, 2.0, 10.0)) == 2.0
    assert headline_temperature([]) is None


def test_any_method_has_its_columns_and_only_the_papers_agents_have_numbers_beside_them():
    other = map_record("sa_ddqn_ibp", 0, "kmap_sparsity", 5.0)
    columns = [column.key for column in table1([other, *SPARSITIES]).columns][5:]
    assert columns[:5] == [
        "kmap_sparsity ddqn",
        "kmap_sparsity ddqn paper",
        "kmap_sparsity sa_ddqn",
        "kmap_sparsity sa_ddqn paper",
        "kmap_sparsity sa_ddqn_ibp",
    ]
    assert "hmap_sparsity sa_ddqn_ibp paper" not in columns


def test_controls_stand_in_a_table_beside_the_agents_on_the_same_states():
    controls = [map_record("shuffled_weights (sa_ddqn seed 0)", draw, "kmap_sparsity", 5.0 + draw) for draw in range(3)]
    elsewhere = map_record("ddqn", 0, "kmap_sparsity", 30.0, states_from="pool", num_states=512)
    records = [*SPARSITIES, elsewhere, *controls]
    assert table1(records) == table1([*SPARSITIES, elsewhere])
    assert sparsity_table(records) == sparsity_table([*SPARSITIES, elsewhere])
    assert control_table(SPARSITIES).rows == ()
    table = control_table(records)
    at = {column.key: index for index, column in enumerate(table.columns)}
    rows = [(row[at["method"]].value, row[at["seed"]].value, row[at["kmap_sparsity"]].value) for row in table.rows]
    shuffled = "shuffled weights (sa_ddqn seed 0)"
    assert {row for row in rows if row[0] == shuffled} == {
        (shuffled, 0, 5.0),
        (shuffled, 1, 6.0),
        (shuffled, 2, 7.0),
        (shuffled, "3 draws", 6.0),
    }
    assert {row[1] for row in rows if row[0] == "DDQN (vanilla)"} == {0, 1}
    assert {row[at["states"]].value for row in table.rows} == {"own"}
    without_temperature = [row[0] for row, shown in zip(rows, table.rows, strict=True) if shown[at["T"]].value is None]
    assert without_temperature == ["DDQN (vanilla)", "SA-DDQN (adversarial)", *[shuffled] * 4], "controls come last"


def grid_records(method: str, seed: int, **fields) -> list[Record]:
    quantiles = {"null": (0.9, 1.0, 1.125), "crop": (2.0, 3.0, 4.0)}
    return [
        map_record(method, seed, "kl_grid_excess", 3.5, low=3.0, high=4.0, interval=JACKKNIFE, **fields),
        map_record(method, seed, "kl_grid_excess", 9.0, item="vertical", **fields),
        map_record(method, seed, "kl_grid_p_value", 0.005, **fields),
        *(
            map_record(method, seed, f"kl_grid_{name}_quantile", value, item=item, **fields)
            for name, values in quantiles.items()
            for item, value in zip(("0.95", "0.5", "0.05"), values[::-1], strict=True)
        ),
    ]


def test_the_grid_has_its_number_its_p_value_and_what_it_is_without_a_grid():
    undefined = [
        map_record("sa_ddqn", 0, f"kmap_grid_{name}", None, note="the map is 0 everywhere")
        for name in ("excess", "p_value")
    ]
    records = [*SPARSITIES, *undefined, *grid_records("sa_ddqn", 0, temperature=1.0)]
    records += grid_records("random_weights", 1, temperature=1.0)
    table = grid_table(records)
    assert [heading for heading, _ in table.groups()] == ["", "grid(K)", "grid(KL)"]
    assert [column.title for column in table.columns][-6:] == ["grid", "p", "grid", "p", "no grid", "crops"]
    agent, control = table.rows
    undefined_cell = Cell(None, note="the map is 0 everywhere")
    measured = (Cell(3.5, 3.0, 4.0), Cell(0.005), Cell(1.0, 0.9, 1.125), Cell(3.0, 2.0, 4.0))
    assert agent[-6:] == (undefined_cell, undefined_cell, *measured)
    assert control[-6:] == (Cell(), Cell(), *measured)
    assert [row[4].value for row in table.rows] == ["SA-DDQN (adversarial)", "random weights"]
    assert "3.50 [3.00, 4.00]" in to_markdown(table)
    assert other_table(records).rows == ()


def test_different_n_states_and_origins_stand_in_rows_of_their_own():
    larger = replace(SPARSITIES[0], num_states=2048)
    pooled = replace(SPARSITIES[0], states_from="pool")
    table = table1([pooled, larger, SPARSITIES[0]], reference={"ddqn0"})
    assert [(row[1].value, row[2].value) for row in table.rows] == [("own", 256), ("own", 2048), ("pool", 256)]
    both = table1([SPARSITIES[0], replace(SPARSITIES[1], seed=0)], reference={"ddqn0"})
    assert [row[1].value for row in both.rows] == ["reference", "trained here"]
    assert [both.columns[1].key, table.columns[1].key] == ["policies", "states"]


def test_two_values_for_one_cell_are_told():
    again = replace(SPARSITIES[0], value=1.5)
    (row,) = table1([SPARSITIES[0], again]).rows
    assert row[5].value == 41.98125
    assert row[5].note == "with other settings also 1.5"


def test_the_sparsity_table_repeats_what_does_not_depend_on_t_in_the_row_of_every_t():
    table = sparsity_table(SPARSITIES)
    keys = [column.key for column in table.columns]
    rows = [{key: cell.value for key, cell in zip(keys, row, strict=True)} for row in table.rows]
    robust = [row for row in rows if row["method"] == "SA-DDQN (adversarial)" and row["seed"] == 0]
    assert [(row["T"], row["kmap_sparsity"], row["hmap_sparsity"]) for row in robust] == [
        (0.1, 12.25, 70.0),
        (1.0, 12.25, 83.5),
    ]
    alone = next(row for row in rows if row["method"] == "DDQN (vanilla)" and row["seed"] == 1)
    assert (alone["T"], alone["kmap_sparsity"], alone["hmap_sparsity"]) == (None, 44.5, None)


def test_entropies_stand_beside_those_of_the_paper():
    records = [
        map_record("sa_ddqn", 0, "kmap_map_entropy", 1.5e-20),
        map_record("sa_ddqn", 0, "kmap_effective_pixels", 150.4),
    ]
    assert "| 1.50e-20 | 0.0807 |" in to_markdown(entropy_table(records))
    assert [column.title for column in measure_table(records).columns][-3:] == [
        "S²(K)",
        "entropy(K)",
        "entropy(K) paper",
    ]


def play_record(metric: str, value: float, **fields) -> Record:
    shared = {"episodes": 20, "attack": "clean", "policy_sha256": "abc", **fields}
    return Record("Freeway", shared.pop("method", "sa_ddqn"), shared.pop("seed", 0), metric, value, **shared)


PLAYED = [
    play_record("return_mean", 29.5, low=29.0, high=30.0, interval="jackknife over 20 episodes, for this policy"),
    play_record("return_std", 1.25),
    play_record("return_mean", 28.0, attack="pgd-10", attack_epsilon=1 / 255),
    play_record("flip_rate", 0.0125, attack="pgd-10", attack_epsilon=1 / 255),
    play_record("return_mean", 27.0, attack="pgd-50", attack_epsilon=1 / 255, episodes=5),
    play_record("return_mean", 20.0, attack="pgd-10", attack_epsilon=3 / 255),
    play_record("return_mean", 29.0, attack="noise", attack_epsilon=1 / 255),
    play_record("return_mean", 21.75, method="baseline", seed=None, attack="constant:UP", policy_sha256=None),
    play_record("return_mean", 0.5, method="baseline", seed=None, attack="random_policy", policy_sha256=None),
    play_record("action_share", 0.75, item="UP"),
    play_record("action_share", 0.25, item="NOOP"),
    play_record("q_gap_quantile", 0.125, item="0.5", num_states=1000),
]


def test_returns_stand_by_attack_from_weak_to_strong_with_blind_and_published_players():
    table = returns_table(PLAYED)
    groups = [group for group, _ in table.groups()]
    assert groups == [
        "",
        "clean (20 episodes)",
        "noise, 1/255 (20 episodes)",
        "PGD-10, 1/255 (20 episodes)",
        "PGD-50, 1/255 (5 episodes)",
        "PGD-10, 3/255 (20 episodes)",
    ]
    at = {column.key: index for index, column in enumerate(table.columns)}
    players = {row[at["player"]].value: row for row in table.rows}
    ours = players["SA-DDQN (adversarial)"]
    assert ours[at["return_mean clean 20 episodes"]] == Cell(29.5, 29.0, 30.0)
    assert ours[at["flip_rate pgd-10 1/255 20 episodes"]].value == 0.0125
    assert players["always UP"][at["return_mean clean 20 episodes"]].value == 21.75
    assert players["random actions"][at["return_mean clean 20 episodes"]].value == 0.5
    published = players["published: SA-DQN (PGD)"]
    assert published[at["return_mean clean 20 episodes"]].value == "33.9"
    assert published[at["return_mean pgd-10 1/255 20 episodes"]].value == "23.7"
    assert list(players)[:3] == ["SA-DDQN (adversarial)", "always UP", "random actions"]


def test_proofs_and_the_worst_case_have_columns_of_their_own():
    proven = [
        play_record("certified_rate", 0.9375, attack_epsilon=1 / 255),
        play_record("return_mean", 26.0, attack="worst_case_bound", attack_epsilon=1 / 255),
        play_record("flip_rate", 0.0625, attack="worst_case_bound", attack_epsilon=1 / 255),
    ]
    table = returns_table([*PLAYED, *proven])
    groups = [group for group, _ in table.groups()]
    assert "clean, proofs at 1/255 (20 episodes)" in groups
    assert groups.index("worst case, 1/255 (20 episodes)") == groups.index("PGD-10, 3/255 (20 episodes)") - 1
    at = {column.key: index for index, column in enumerate(table.columns)}
    players = {row[at["player"]].value: row for row in table.rows}
    certified = at["certified_rate clean 1/255 20 episodes"]
    assert players["SA-DDQN (adversarial)"][certified].value == 0.9375
    assert players["SA-DDQN (adversarial)"][at["return_mean worst_case_bound 1/255 20 episodes"]].value == 26.0
    assert players["published: CAR (IBP)"][certified].value == ".981"
    out = io.StringIO()
    print_records([*PLAYED, *proven], Console(file=out, width=160))
    assert "0.9375" in out.getvalue()
    assert "worst case, 1/255" in out.getvalue()


def test_actions_say_how_often_another_than_the_commonest_is_taken():
    (row,) = action_table(PLAYED, "Freeway").rows
    assert [cell.value for cell in row] == ["Freeway", "SA-DDQN (adversarial)", 20, 0, 0.75, 0.25, 0.25]
    assert action_table(PLAYED, "Pong").rows == ()


def test_q_gaps_and_unknown_metrics_have_tables_too():
    (row,) = q_gap_table(PLAYED).rows
    assert [cell.value for cell in row] == ["Freeway", "whole episodes", 1000, "SA-DDQN (adversarial)", 0, 0.125]
    excess = map_record("sa_ddqn", 0, "grid_excess", 3.5, item="vertical")
    table = other_table([*PLAYED, *SPARSITIES, excess])
    (row,) = table.rows
    assert row[-1] == Cell(3.5)
    assert {"grid_excess", "vertical"} <= {cell.value for cell in row}


@pytest.mark.parametrize("width", [80, 120, 300])
def test_a_table_wider_than_the_terminal_is_printed_in_parts_that_fit(width):
    out = io.StringIO()
    print_table(table1(SPARSITIES), Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(len(line.rstrip()) for line in lines) <= width
    text = out.getvalue()
    for shown in (
        "41.98",
        "[39.50, 44.25]",
        "53.7272",
        "undefined²",
        "83.500000",
        "[83.250000, 83.750000]",
        "83.91587",
    ):
        assert shown in text
    assert "…" not in text
    assert text.count("Freeway") >= 3 + text.count("continued")  # every part names its rows


def test_a_continued_part_leaves_out_rows_with_nothing_in_it():
    columns = (Column("seed", "seed"), *(Column(name * 30, name * 30, measured=True) for name in "abc"))
    rows = ((Cell("one"), Cell(1.0), Cell(), Cell(7.5)), (Cell("two"), Cell(2.0), Cell(), Cell()))
    out = io.StringIO()
    print_table(Table("name", "title", columns, rows), Console(file=out, width=45))
    parts = out.getvalue().split("continued")
    assert [("one" in part, "two" in part) for part in parts] == [(True, True), (False, False), (True, False)]


def test_a_mean_of_p_values_is_not_shown():
    records = [record for seed in (0, 1) for record in grid_records("sa_ddqn", seed, temperature=1.0)]
    *_, over_seeds = grid_table(records).rows
    assert [cell.value for cell in over_seeds[-4:]] == [3.5, None, 1.0, 3.0]


def test_print_records_shows_returns_and_sparsity():
    out = io.StringIO()
    print_records([*PLAYED, *SPARSITIES], Console(file=out, width=160))
    for shown in ("29.50", "always UP", "41.98", "undefined", "Sparsity of all kinds of maps"):
        assert shown in out.getvalue()


def test_special_characters_are_escaped_for_latex():
    assert escape_latex("50% of a_b & {x} ~ ^ \\ # $") == (
        r"50\% of a\_b \& \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \# \$"
    )
    assert escape_latex("κ = 0, ε ≤ 1/255, √2, —") == r"$\kappa$ = 0, $\varepsilon$ $\leq$ 1/255, $\surd$2, ---"
    assert escape_latex("1.50e-20") == r"$1.50\times 10^{-20}$"


@given(st.text())
def test_no_special_character_survives_the_escape(text):
    escaped = escape_latex(text)
    for index, character in enumerate(escaped):
        if character in "%&#":
            assert escaped[index - 1] == "\\"


def test_pipes_do_not_break_a_markdown_row():
    table = Table("t", "t", (Column("a", "a|b"),), ((Cell("x|y"),),))
    assert "| a\\|b |" in to_markdown(table)
    assert "| x\\|y |" in to_markdown(table)


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (41.98125, 2, "41.98"),
        (0.0, 2, "0.00"),
        (1.542e-20, 4, "1.54e-20"),
        (-0.001, 2, "-1.00e-03"),
        (3, 2, "3"),
        ("83.999992", 0, "83.999992"),
        (0.1, None, "0.1"),
        (1e4, None, "10000"),
    ],
)
def test_numbers_keep_what_matters(value, digits, shown):
    assert format_number(value, digits) == shown


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
    assert attack_label("worst_case_bound", 3 / 255) == "worst case, 3/255"
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
