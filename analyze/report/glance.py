"""What the numbers say of the paper's finding, in sentences that are computed, not written."""

from collections.abc import Iterator, Sequence

from analyze.names import attack_label, base_method, is_control, method_label, method_rank, states_label
from analyze.published import paper_number
from nrmap.evaluation import BASELINE_METHOD
from nrmap.records import Record, select

# A policy that scores less than this above the best constant action has not learned to look.
LEAD = 3.0


def glance(records: Sequence[Record]) -> list[str]:
    """Sentences on one game: sparser or not, seed by seed, and above the best constant action or not."""
    return [*_sparsity(records), *_returns(records)]


def _sparsity(records: Sequence[Record]) -> Iterator[str]:
    maps = [
        record
        for record in select(records, metric="kmap_sparsity", item=None)
        if record.states_from and not is_control(record.method)
    ]
    methods = sorted({record.method for record in maps}, key=method_rank)
    vanilla = next((method for method in methods if base_method(method) == "ddqn"), None)
    sets = sorted({(r.states_from or "", r.num_states or 0) for r in maps}, key=lambda one: (one[0] != "own", one))
    for states_from, num_states in sets:
        for method in methods:
            if vanilla is None or base_method(method) == "ddqn":
                continue
            pairs = [
                (ours.value, other.value)
                for ours in select(maps, method=vanilla, states_from=states_from, num_states=num_states)
                for other in select(maps, method=method, states_from=states_from, num_states=num_states, seed=ours.seed)
            ]
            if pairs:
                yield _comparison(
                    pairs, vanilla, method, f"{states_label(states_from)}, N = {num_states}", maps[0].game
                )


def _comparison(
    pairs: Sequence[tuple[float | None, float | None]], vanilla: str, method: str, where: str, game: str
) -> str:
    defined = [(ours, other) for ours, other in pairs if ours is not None and other is not None]
    sparser = sum(other < ours for ours, other in defined)
    undefined = len(pairs) - len(defined)
    seeds = "seed" if len(defined) == 1 else "seeds"
    text = (
        f"{where[0].upper()}{where[1:]}: KMAP of {method_label(method)} is sparser than that of "
        f"{method_label(vanilla)} in {sparser} of {len(defined)} {seeds}"
    )
    text += f" where both are defined; S(K) is undefined in {undefined}." if undefined else "."
    first, second = (paper_number(game, base_method(one), "kmap_sparsity") for one in (vanilla, method))
    if first and second:
        relation = "sparser" if second.value < first.value else "not sparser"
        text += f" In the paper it is {relation}: {second.printed} against {first.printed}."
    return text


def _returns(records: Sequence[Record]) -> Iterator[str]:
    means = select(records, metric="return_mean")
    constants = [
        record for record in select(means, method=BASELINE_METHOD) if (record.attack or "").startswith("constant:")
    ]
    best = max(constants, key=lambda record: record.value or 0.0, default=None)
    if best is None or best.value is None:
        return
    floor = best.value
    yield f"The best constant action, {attack_label(best.attack)}, returns {floor:.2f}."
    for method in sorted({record.method for record in means} - {BASELINE_METHOD}, key=method_rank):
        clean = [record.value for record in select(means, method=method, attack="clean") if record.value is not None]
        if clean:
            above = sum(value >= floor + LEAD for value in clean)
            values = ", ".join(f"{value:.2f}" for value in clean)
            yield (
                f"{method_label(method)}: clean {values}; {above} of {len(clean)} "
                f"{'policy beats' if above == 1 else 'policies beat'} the best constant action by {LEAD:g} or more."
            )
