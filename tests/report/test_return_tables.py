"""Returns, actions and Q-gaps in tables, beside those of the paper and of others."""

import io
from dataclasses import replace

from rich.console import Console
from table_records import PLAYED, play_record

from analyze.report.formats import Cell, to_csv, to_latex, to_markdown
from analyze.report.return_tables import action_table, q_gap_table, returns_table
from analyze.report.tables import (
    print_records,
)


def test_returns_stand_by_attack_from_weak_to_strong_with_blind_and_published_players():
    table = returns_table(PLAYED)
    groups = [group for group, _ in table.groups()]
    assert groups == [
        "",
        "clean (20 episodes)",
        "noise, ε = 1/255 (20 episodes)",
        "PGD-10, ε = 1/255 (20 episodes)",
        "PGD-50, ε = 1/255 (5 episodes)",
        "PGD-10, ε = 3/255 (20 episodes)",
    ]
    at = {column.key: index for index, column in enumerate(table.columns)}
    players = {row[at["player"]].value: row for row in table.rows}
    ours = players["SA-DDQN (adversarial)"]
    assert ours[at["return_mean clean, 20 episodes"]] == Cell(29.5, 29.0, 30.0)
    assert ours[at["flip_rate PGD-10, ε = 1/255, 20 episodes"]].value == 0.0125
    assert players["always UP"][at["return_mean clean, 20 episodes"]].value == 21.75
    assert players["random actions"][at["return_mean clean, 20 episodes"]].value == 0.5
    published = players["published: SA-DQN (PGD)"]
    assert published[at["return_mean clean, 20 episodes"]].value == "33.9"
    attacked = published[at["return_mean PGD-10, ε = 1/255, 20 episodes"]]
    assert attacked.value == "23.7"
    assert list(players)[:3] == ["SA-DDQN (adversarial)", "always UP", "random actions"]


def test_what_fgsm_and_pgd_do_here_is_said_in_every_format():
    table = returns_table(PLAYED)
    for text in (to_markdown(table), to_csv(table), to_latex(table)):
        assert "one PGD of 10 steps; the attack of this column takes up to 30, on 3 objectives" in text
    assert "FGSM and PGD try 3 objectives in turn" in to_markdown(table)
    at = {column.key: index for index, column in enumerate(table.columns)}
    published = next(row for row in table.rows if row[1].value == "published: SA-DQN (PGD)")
    assert published[at["return_mean clean, 20 episodes"]].note is None
    unattacked = returns_table([record for record in PLAYED if record.attack in ("clean", "noise")])
    assert "objectives" not in to_markdown(unattacked)


def test_proofs_and_the_worst_case_have_columns_of_their_own():
    proven = [
        play_record("certified_rate", 0.9375, attack_epsilon=1 / 255),
        play_record("return_mean", 26.0, attack="greedy_worst_case", attack_epsilon=1 / 255),
        play_record("flip_rate", 0.0625, attack="greedy_worst_case", attack_epsilon=1 / 255),
    ]
    table = returns_table([*PLAYED, *proven])
    groups = [group for group, _ in table.groups()]
    assert "clean, proofs at ε = 1/255 (20 episodes)" in groups
    assert groups.index("GWC, ε = 1/255 (20 episodes)") == groups.index("PGD-10, ε = 3/255 (20 episodes)") - 1
    at = {column.key: index for index, column in enumerate(table.columns)}
    players = {row[at["player"]].value: row for row in table.rows}
    certified = at["certified_rate clean, proofs at ε = 1/255, 20 episodes"]
    assert players["SA-DDQN (adversarial)"][certified].value == 0.9375
    worst = at["return_mean GWC, ε = 1/255, 20 episodes"]
    assert players["SA-DDQN (adversarial)"][worst] == Cell(26.0)
    vacuous = returns_table([replace(proven[0], value=0.0), *proven[1:]])
    assert "the bounds certify no state" in vacuous.rows[0][-2].note
    other = replace(proven[1], seed=1, policy_sha256="def")
    of_seeds = returns_table([*(replace(proven[0], value=0.0), *proven[1:]), other]).rows[2]
    assert of_seeds[2].value == "2 seeds"
    assert of_seeds[-2].note == "proves nothing: the bounds certify no state at this radius (seed 0)"
    assert players["published: CAR (IBP)"][certified].value == ".981"
    out = io.StringIO()
    print_records([*PLAYED, *proven], Console(file=out, width=160))
    assert "0.9375" in out.getvalue()
    assert "GWC, ε = 1/255" in out.getvalue()


def test_actions_say_how_often_another_than_the_commonest_is_taken():
    (row,) = action_table(PLAYED, "Freeway").rows
    assert [cell.value for cell in row] == ["Freeway", "SA-DDQN (adversarial)", 20, 0, 0.75, 0.25, 0.25]
    assert action_table(PLAYED, "Pong").rows == ()


def test_q_gaps_have_a_table():
    (row,) = q_gap_table(PLAYED).rows
    assert [cell.value for cell in row] == ["Freeway", "whole episodes", 1000, "SA-DDQN (adversarial)", 0, 0.125]
