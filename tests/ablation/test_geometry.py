"""Window arithmetic against the definition of a convolution, output by output."""

from hypothesis import assume, given
from hypothesis import strategies as st

from nrmap.ablation.geometry import Axis, strips

axes = st.builds(
    Axis,
    kernel=st.integers(1, 5),
    stride=st.integers(1, 6),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    dilation=st.integers(1, 3),
)


def reads(axis: Axis, output: int, inputs: int) -> dict[int, int]:
    """The input read by each tap of an output, without padding: {tap: input}."""
    positions = {tap: output * axis.stride - axis.before + tap * axis.dilation for tap in range(axis.kernel)}
    return {tap: position for tap, position in positions.items() if 0 <= position < inputs}


def hull(values: list[int]) -> range:
    return range(min(values), max(values) + 1) if values else range(0)


@given(axis=axes, inputs=st.integers(1, 20), data=st.data())
def test_readers_and_runs(axis, inputs, data):
    outputs = axis.outputs(inputs)
    assume(outputs > 0)
    first = data.draw(st.integers(0, inputs - 1))
    changed = range(first, data.draw(st.integers(first + 1, inputs)))
    reading = [output for output in range(outputs) if set(reads(axis, output, inputs).values()) & set(changed)]
    readers = axis.readers(changed, outputs)
    assert set(reading) <= set(readers)
    assert set(readers) <= set(range(outputs))
    if axis.dilation == 1:
        assert list(readers) == list(hull(reading))
    for output in range(outputs):
        runs = axis.runs(output, changed)
        found = {run.tap + k: run.input + k for run in runs for k in range(run.length)}
        expected = {tap: source for tap, source in reads(axis, output, inputs).items() if source in changed}
        assert found == expected
        assert sum(run.length for run in runs) == len(expected)
        assert len(runs) <= (1 if axis.dilation == 1 else axis.kernel)


@given(axis=axes, inputs=st.integers(1, 20))
def test_strips_are_blocks_of_inputs_that_reach_the_same_outputs(axis, inputs):
    outputs = axis.outputs(inputs)
    assume(outputs > 0)
    blocks = strips(axis, inputs)
    covered = [source for block in blocks for source in block]
    assert covered == sorted(set(covered))
    reached = [axis.readers(range(source, source + 1), outputs) for source in range(inputs)]
    assert covered == [source for source in range(inputs) if reached[source]]
    for block in blocks:
        assert {reached[source] for source in block} == {axis.readers(block, outputs)}
