"""The tables of maps: the row and column of each record, and the notes."""

from dataclasses import replace
from functools import partial

from table_records import SPARSITIES, grid_records, map_record

from analyze.report.formats import Cell
from analyze.report.rows import SPREAD_NOTE
from analyze.report.tables import headline_temperature, map_table

table1 = partial(map_table, "table1")


def values_of(table, *keys):
    """The values in some columns, row by row."""
    at = {column.key: index for index, column in enumerate(table.columns)}
    return [tuple(row[at[key]].value for key in keys) for row in table.rows]


def test_table1_does_not_depend_on_the_order_of_the_records():
    assert table1(SPARSITIES[::-1]) == table1(SPARSITIES)


def test_the_temperature_of_the_headline_is_that_of_most_maps_then_the_one_nearest_to_1():
    def at(*temperatures):
        return [map_record("ddqn", 0, "hmap", "sparsity", 1.0, temperature=t) for t in temperatures]

    assert headline_temperature(at(0.1, 0.1, 1.0)) == 0.1
    assert headline_temperature(at(0.1, 2.0, 10.0)) == 2.0
    assert headline_temperature([]) is None


def test_controls_stand_in_a_table_beside_the_agents_on_the_same_states():
    source = {"source_method": "sa_ddqn", "source_seed": 0}
    shuffled_weights = partial(map_record, "shuffled_weights", None, "kmap", "sparsity", **source)
    controls = [shuffled_weights(5.0 + draw, draw=draw) for draw in range(3)]
    elsewhere = map_record("ddqn", 0, "kmap", "sparsity", 30.0, states_from="pool", num_states=512)
    records = [*SPARSITIES, elsewhere, *controls]
    assert table1(records) == table1([*SPARSITIES, elsewhere])
    assert map_table("sparsity", records) == map_table("sparsity", [*SPARSITIES, elsewhere])
    assert map_table("controls", SPARSITIES).rows == ()
    table = map_table("controls", records)
    rows, shuffled = values_of(table, "method", "seed", "kmap_sparsity"), "shuffled SA-DDQN seed 0"
    draws = {(shuffled, 0, 5.0), (shuffled, 1, 6.0), (shuffled, 2, 7.0), (shuffled, "3 draws", 6.0)}
    assert {row for row in rows if row[0] == shuffled} == draws
    assert {row[1] for row in rows if row[0] == "DDQN (vanilla)"} == {0, 1}
    assert {*values_of(table, "states")} == {("own",)}
    without_temperature = [method for method, t in values_of(table, "method", "T") if t is None]
    assert without_temperature == ["DDQN (vanilla)", "SA-DDQN (adversarial)", *[shuffled] * 4], "controls come last"


def test_the_grid_has_its_number_its_p_value_and_what_it_is_without_a_grid():
    zero = {"value": None, "note": "the map is 0 everywhere"}
    undefined = [map_record("sa_ddqn", 0, "kmap", f"grid_{name}", **zero) for name in ("excess", "p_value")]
    records = [*SPARSITIES, *undefined, *grid_records("sa_ddqn", 0, temperature=1.0)]
    table = map_table("grid", [*records, *grid_records("random_weights", None, draw=1, temperature=1.0)])
    assert [heading for heading, _ in table.groups()] == ["", "grid(K)", "grid(KL)"]
    assert [column.title for column in table.columns][-6:] == ["grid", "p", "grid", "p", "no grid", "crops"]
    agent, control = table.rows
    measured = (Cell(3.5, 3.0, 4.0), Cell(0.005), Cell(1.0, 0.9, 1.125), Cell(3.0, 2.0, 4.0))
    assert agent[-6:] == (Cell(**zero), Cell(**zero), *measured)
    assert control[-6:] == (Cell(), Cell(), *measured)
    assert values_of(table, "method") == [("SA-DDQN (adversarial)",), ("random weights",)]


def test_a_mean_of_p_values_is_not_shown():
    records = [record for seed in (0, 1) for record in grid_records("sa_ddqn", seed, temperature=1.0)]
    *_, over_seeds = map_table("grid", records).rows
    assert [cell.value for cell in over_seeds[-4:]] == [3.5, None, 1.0, 3.0]


def test_different_n_states_and_origins_stand_in_rows_of_their_own():
    larger, pooled = replace(SPARSITIES[0], num_states=2048), replace(SPARSITIES[0], states_from="pool")
    table = table1([pooled, larger, SPARSITIES[0]], reference={"ddqn0": "quick"})
    assert values_of(table, "states", "N") == [("own", 256), ("own", 2048), ("pool", 256)]
    both = table1([SPARSITIES[0], replace(SPARSITIES[1], seed=0)], reference={"ddqn0": "quick"})
    assert values_of(both, "policies") == [("reference, quick",), ("trained here",)]


def test_a_second_value_for_one_cell_is_a_note():
    (row,) = table1([SPARSITIES[0], replace(SPARSITIES[0], value=1.5)]).rows
    assert (row[5].value, row[5].note) == (41.98125, "with other settings also 1.5")


def test_the_sparsity_table_repeats_what_does_not_depend_on_t_in_the_row_of_every_t():
    rows = values_of(map_table("sparsity", SPARSITIES), "method", "seed", "T", "kmap_sparsity", "hmap_sparsity")
    robust = [row[2:] for row in rows if row[:2] == ("SA-DDQN (adversarial)", 0)]
    assert robust == [(0.1, 12.25, 70.0), (1.0, 12.25, 83.5)]
    assert ("DDQN (vanilla)", 1, None, 44.5, None) in rows


def test_every_game_has_its_own_headline_temperature_and_the_others_are_named():
    other = [replace(record, game="Pong", temperature=record.temperature and 5.0) for record in SPARSITIES]
    table = table1([*SPARSITIES, *other])
    shown = {*values_of(table, "game", "T", "hmap_sparsity ddqn")[::3]}
    assert shown == {("Freeway", 1.0, 83.9998766), ("Pong", 5.0, 83.9998766)}
    assert "Maps at T = 0.1 are in other tables." in table.notes


def test_the_spread_names_the_seeds_that_it_lacks():
    of_seeds = (("ddqn", 0, 4.0), ("ddqn", 1, None), ("sa_ddqn", 2, 1.0))
    records = [map_record(method, seed, "kmap", "sparsity", value, note="zero") for method, seed, value in of_seeds]
    *_, spread = table1(records).rows
    assert [cell.note for cell in spread if cell.spread] == [
        "over 1 of 3: undefined (seed 1); not measured (seed 2)", "over 1 of 3: not measured (seed 0, seed 1)",
    ]  # fmt: skip
    seeds_of_other_methods = table1([records[0], records[2]])
    assert [seed for (seed,) in values_of(seeds_of_other_methods, "seed")] == [0, 2]
    assert SPREAD_NOTE not in seeds_of_other_methods.notes
    assert SPREAD_NOTE in table1(records).notes
