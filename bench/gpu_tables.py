"""Tables of docs/scale.md from the files of bench.gpu."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

MISSING = "not measured"
DENSE = ("dense_float32", "dense_tf32")


def tables(train: Mapping[str, Any], maps: Mapping[str, Any]) -> list[Table]:
    """Make the tables of updates, trainings side by side, an ablated state, and attack and training.

    `train` and `maps` are the content of train-cuda.json and maps-cuda.json. Missing numbers are "not measured".
    """
    updates = Table("update, ms", "graph", "without replay", "eager", "kernels", "at 2 µs each", title="Updates")
    updates.add_column("equal to eager")
    for method, found in _parts(train.get("updates", {})):
        cells = [_number(found, f"milliseconds_{form}") for form in ("graphs", "without_replay", "eager")]
        cells += [str(found.get("kernels", MISSING)), _number(found, "at_2_us_a_kernel")]
        updates.add_row(method, *cells, _equality(found))
    updates.caption = "Batch 32, dueling, PGD-5. A graph draws the batch, learns and sets priorities."

    beside = Table(
        "trainings", "agent steps a second", "updates a second", title="Trainings at scale=paper on one card"
    )
    for name, found in _parts(train.get("side_by_side", {})):
        rates = (_number(found, f"{unit}_per_second", digits=0) for unit in ("agent_steps", "updates"))
        beside.add_row(name, *rates)

    state, found = Table("one ablated state", "ms", title="Maps"), maps.get("maps", {})
    best = {name: _best(found, name) for name in DENSE}
    for label, milliseconds in (
        ("engine, differences only", found.get("milliseconds_incremental_differences")),
        ("engine", found.get("milliseconds_incremental")),
        ("engine and maps", found.get("milliseconds_with_maps")),
        *((f"dense batches, {name.removeprefix('dense_')}", value) for name, value in best.items()),
        ("captum, FeatureAblation of one action", found.get("milliseconds_captum")),
    ):
        state.add_row(label, MISSING if milliseconds is None else f"{milliseconds:.3g}")
    mismatches, checked = (found.get(name, MISSING) for name in ("argmax_mismatches", "ablations_checked"))
    state.caption = f"Argmax mismatches against float64: {mismatches} of {checked}."

    others = Table("", "", title="Attack and training")
    attack, training = train.get("attack", {}), train.get("training", {})
    others.add_row("PGD-10 on the states of 20 episodes, ms", _number(attack, "milliseconds_player"))
    others.add_row("the same, eager, ms", _number(attack, "milliseconds_eager"))
    others.add_row("Freeway, scale=quick, agent steps a second", _number(training, "agent_steps_per_second", digits=0))
    return [updates, beside, state, others]


def _parts(found: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, part) for name, part in found.items() if isinstance(part, Mapping)]


def _equality(found: Mapping[str, Any]) -> str:
    if "equal_bit_for_bit" not in found:
        return MISSING
    return "bit for bit" if found["equal_bit_for_bit"] else f"to {found['largest_difference']:.1g}"


def _best(found: Mapping[str, Any], name: str) -> float | None:
    return min((value for key, value in found.items() if key.startswith(f"milliseconds_{name}_")), default=None)


def _number(found: Mapping[str, Any], name: str, digits: int = 2) -> str:
    return f"{found[name]:,.{digits}f}" if name in found else MISSING
