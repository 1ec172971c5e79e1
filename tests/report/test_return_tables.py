"""Returns, actions and Q-gaps in tables, beside those of others; test_page.py finds every return in its cell."""

from dataclasses import replace

from table_records import PLAYED, play_record

from analyze.report.formats import Cell, to_csv, to_latex, to_markdown
from analyze.report.return_tables import action_table, q_gap_table, returns_table

PROVEN = [
    play_record("certified_rate", 0.9375, attack_epsilon=1 / 255),
    play_record("return_mean", 26.0, attack="greedy_worst_case", attack_epsilon=1 / 255),
]


def test_returns_stand_by_attack_from_weak_to_strong_with_blind_and_published_players():
    table = returns_table([*PLAYED, *PROVEN])
    assert [group for group, _ in table.groups()] == [
        "", "clean (20 episodes)", "clean, proofs at ε = 1/255 (20 episodes)", "noise, ε = 1/255 (20 episodes)",
        "PGD-10, ε = 1/255 (20 episodes)", "PGD-50, ε = 1/255 (5 episodes)", "GWC, ε = 1/255 (20 episodes)",
        "PGD-10, ε = 3/255 (20 episodes)",
    ]  # fmt: skip
    rows = [{column.key: cell for column, cell in zip(table.columns, row, strict=True)} for row in table.rows]
    players = {row["player"].value: row for row in rows}
    assert list(players)[:3] == ["SA-DDQN (adversarial)", "always UP", "random actions"]
    clean, attacked = "return_mean clean, 20 episodes", "PGD-10, ε = 1/255, 20 episodes"
    assert [players[name][clean].value for name in ("always UP", "random actions")] == [21.75, 0.5]
    published = players["published: SA-DQN (PGD)"]
    assert (published[clean], published[f"return_mean {attacked}"].value) == (Cell("33.9"), "23.7")
    certified = players["published: CAR (IBP)"]["certified_rate clean, proofs at ε = 1/255, 20 episodes"]
    assert certified.value == ".981"
    for text in (to_markdown(table), to_csv(table), to_latex(table)):
        assert "one PGD of 10 steps; the attack of this column takes up to 30, on 3 objectives" in text


def test_bounds_that_certify_no_state_are_a_note():
    vacuous = [replace(PROVEN[0], value=0.0), PROVEN[1]]
    note = "proves nothing: the bounds certify no state at this radius"
    assert returns_table(vacuous).rows[0][-1].note == note
    of_seeds = returns_table([*vacuous, replace(PROVEN[1], seed=1, policy_sha256="def")]).rows[2]
    assert (of_seeds[2].value, of_seeds[-1].note) == ("2 seeds", f"{note} (seed 0)")


def test_actions_say_how_often_another_than_the_commonest_is_taken_and_q_gaps_have_a_table():
    (row,) = action_table(PLAYED, "Freeway").rows
    assert [cell.value for cell in row] == ["Freeway", "SA-DDQN (adversarial)", 20, 0, 0.75, 0.25, 0.25]
    assert action_table(PLAYED, "Pong").rows == ()
    (row,) = q_gap_table(PLAYED).rows
    assert [cell.value for cell in row] == ["Freeway", "whole episodes", 1000, "SA-DDQN (adversarial)", 0, 0.125]
