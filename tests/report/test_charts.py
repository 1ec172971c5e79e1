"""Charts and the panels of the report: the artists on an Axes against the data they were given."""

from dataclasses import replace
from functools import partial

import numpy as np
from axes_drawn import drawn, lines_of, marks_of, y_labels
from matplotlib.figure import Figure
from table_records import PLAYED, map_record, play_record

from analyze.report.chart_sheets import chart_sheets
from analyze.report.charts import Series, draw_lines
from analyze.report.learning_curves import curve_panels
from analyze.report.results import FoundTraining, Part
from nrmap.support.records import Record


def panels_of(name: str, records: list[Record]):
    """The panels of one kind of chart; none without data."""
    sheets = {sheet.name: sheet.panels for sheet in chart_sheets(Part("Freeway", None, records, [], []))}
    return sheets.get(f"{name}-Freeway", ())


def test_lines_are_the_series_and_their_bands_the_intervals(ax):
    x, y = [4, 16, 64], [1.0, 2.0, 3.0]
    series = [
        Series("SA-DDQN", x, y, "red", "o", low=[0.5, 1.5, 2.5], high=[1.5, 2.5, 3.5]),
        Series("SA-DDQN", x, [2.0, np.nan, 4.0], "red", "o"),
    ]
    draw_lines(ax, series, title="t", x_label="N, number of states", y_label="S", log_x=True)
    np.testing.assert_array_equal(lines_of(ax), [[x, y], [x, [2, np.nan, 4]]])
    (band,) = ax.collections
    assert {(4, 0.5), (4, 1.5), (64, 2.5), (64, 3.5)} <= {tuple(corner) for corner in band.get_paths()[0].vertices}
    agree = Figure().subplots()
    lines = [Series("A", [1, 2], [84 - 4e-8, 84.0], "red"), Series("B", [1, 2], [84.0, 84.0], "blue")]
    draw_lines(agree, lines, title="t", x_label="x", y_label="S")
    assert np.ptp(agree.get_ylim()) > 1000 * 4e-8, "values that agree to a millionth look equal"


def map_records(method: str = "ddqn", seed: int = 0) -> list[Record]:
    make = partial(map_record, method, seed, metric="sparsity")
    return [
        make("kmap", value=10.0, num_states=16, prefix=True),
        make("kmap", value=20.0, num_states=64, prefix=True),
        make("kmap", value=40.0, low=35.0, high=45.0),
        make("hmap", value=60.0, temperature=0.1),
        make("hmap", value=83.0, temperature=1.0),
    ]


def test_sparsity_against_n_and_t_is_that_of_the_records():
    (against_n,), (against_t,) = panels_of("size", map_records()), panels_of("temperature", map_records())
    np.testing.assert_array_equal(lines_of(drawn(against_n))[0], [[16, 64, 256], [10, 20, 40]])
    np.testing.assert_array_equal(lines_of(drawn(against_t))[0], [[0.1, 1.0], [60, 83]])
    undefined = [replace(record, value=None, note="the map is 0 everywhere") for record in map_records()]
    assert panels_of("size", undefined) == panels_of("temperature", undefined) == (), "no empty axes"


def test_the_sparsity_chart_marks_the_papers_numbers():
    ax = drawn(panels_of("sparsity", [*map_records(), *map_records("sa_ddqn"), *map_records("sa_ddqn", 1)])[0])
    assert (marks_of(ax, "paper, vanilla"), marks_of(ax, "paper, adversarial")) == ([53.7272], [20.4641])
    assert y_labels(ax) == ["DDQN seed 0", "SA-DDQN seed 0", "SA-DDQN seed 1"]
    assert [line.get_xydata().tolist() for line in ax.get_lines()[:2]] == [[[35, 0], [45, 0]], [[40, 0]]]


def test_null_networks_share_a_row_for_all_seeds_with_a_dot_for_every_draw():
    def of(kind: str, source: str, seed: int, value: float | None, metric: str = "sparsity", draw: int = 0) -> Record:
        fields = {"draw": draw, "source_method": source, "source_seed": seed, "note": "zero"}
        return map_record(f"{kind}_weights", None, "kmap", metric, value, **fields)

    null_networks = [
        of("random", "ddqn", 0, 60.0), of("random", "ddqn", 0, None, draw=1), of("random", "ddqn", 1, 62.0),
        of("shuffled", "ddqn", 0, 50.0), of("shuffled", "ddqn", 1, 51.0), of("shuffled", "sa_ddqn", 0, 40.0),
    ]  # fmt: skip
    grids = [of("random", "ddqn", 0, None, "grid_excess"), replace(map_records()[2], metric="grid_excess", value=1.5)]
    elsewhere = replace(null_networks[0], states_from="pool")
    panel, *_ = panels_of("controls", [*map_records(), *null_networks, elsewhere])
    ax = drawn(panel)
    assert y_labels(ax) == ["DDQN seed 0", "random weights", "shuffled DDQN", "shuffled SA-DDQN"]
    assert [dots.get_offsets()[:, 0].tolist() for dots in ax.collections] == [[60, 62], [50, 51], [40]]
    assert [line.get_xdata()[0] for line in ax.get_lines() if len(line.get_xdata()) == 1] == [40, 61, 50.5, 40]
    (grid,) = panels_of("grid", [*map_records(), *grids])
    ax = drawn(grid)
    assert ([text.get_text() for text in ax.texts], marks_of(ax, "no grid")) == (["undefined"], [1.0])
    assert panels_of("controls", map_records()) == panels_of("grid", map_records()) == ()


def test_returns_have_a_panel_for_each_attack_with_the_baselines_in_the_first():
    def of(values: list[float], **fields) -> list[Record]:
        make = partial(play_record, episodes=len(values), **fields)
        episodes = [make("return", value, episode=number) for number, value in enumerate(values)]
        return [*episodes, make("return_mean", float(np.mean(values)))]

    attack = {"attack": "pgd", "attack_steps": 10, "attack_epsilon": 1 / 255}
    blind = of([21.0], method="constant_action", variant="UP", seed=None)
    shorter = play_record("return_mean", 9.0, episodes=1)
    panels = panels_of("returns", [*of([30.0, 32.0]), *of([4.0], **attack), *blind, shorter])
    clean, attacked = map(drawn, panels)
    assert y_labels(clean) == ["SA-DDQN seed 0", "always UP"]
    assert clean.collections[0].get_offsets()[:, 0].tolist() == [30, 32]
    assert marks_of(clean, "best constant") == [21.0]
    assert attacked.collections[0].get_offsets()[:, 0].tolist() == [4]
    assert attacked.get_xlim() == clean.get_xlim(), "panels are compared with each other"


def test_actions_gaps_and_certified_rates_are_those_of_the_records():
    assert [panel.alt for panel in panels_of("actions", PLAYED)] == [
        "Action UP. SA-DDQN seed 0 0.75.", "Action NOOP. SA-DDQN seed 0 0.25.",
    ]  # fmt: skip
    quantiles = [play_record("q_gap_quantile", 100 * q, quantile=q) for q in (0.01, 0.25, 0.5, 0.75, 0.99)]
    (panel,) = panels_of("gaps", quantiles)
    assert [line.get_xdata().tolist() for line in drawn(panel).get_lines()] == [[1, 99], [25, 75], [50]]
    rates = [play_record("certified_rate", value, attack_epsilon=e / 255) for value, e in ((0.5, 3), (0.97, 1))]
    assert [marks_of(drawn(panel))[0] for panel in panels_of("certified", rates)] == [0.97, 0.5]
    assert chart_sheets(Part("Freeway", None, [], [], [])) == []


def test_a_learning_curve_is_the_mean_of_the_last_episodes_and_goes_on_where_the_parents_ended():
    scores = np.random.default_rng(0).normal(10, 3, 50)
    episodes = [{"agent_step": 100 * n, "undiscounted_return": float(score)} for n, score in enumerate(scores)]
    curves = {"episodes": episodes, "rows": [{"agent_step": 15, "loss": 0.5}]}
    settings = {"parent": {"steps": 600, "parent": {"steps": 400, "parent": None}}}
    run = FoundTraining("", "Freeway", "sa_ddqn", 0, None, settings, curves, card=None, sha256=None)
    returns, loss = map(drawn, curve_panels([run], []))
    (line,) = lines_of(returns)
    expected = [np.mean(scores[max(end - 20, 0) : end]) for end in range(1, 51)]
    np.testing.assert_allclose(line, [1000 + 100 * np.arange(50), expected])
    np.testing.assert_array_equal(returns.collections[0].get_offsets()[:, 1], scores)
    assert loss.get_lines()[0].get_xdata() == [1015]
