"""tiles: as many samples and timesteps at once as a memory budget, and caches, allow."""

from hypothesis import given
from hypothesis import strategies as st

from onnxsnn import convert
from onnxsnn.runtime.tiles import MEMORY, best_tile, live_bytes
from onnxsnn.source import Source
from tests.networks import IntegerBuilder

counts = st.integers(1, 300)


@given(samples=counts, timesteps=counts, each=st.integers(1, 2**28), memory=st.integers(1, 2**30))
def test_a_tile_is_within_the_budget_and_no_more_than_there_is(samples, timesteps, each, memory):
    together, steps = best_tile(samples, timesteps, each, memory)
    assert 1 <= together <= samples
    assert 1 <= steps <= timesteps
    assert together * steps == 1 or together * steps * each <= memory


@given(samples=counts, timesteps=counts, each=st.integers(1, 2**28))
def test_pieces_are_even(samples, timesteps, each):
    for whole, size in zip((samples, timesteps), best_tile(samples, timesteps, each), strict=True):
        pieces = -(-whole // size)
        assert pieces * (size - 1) < whole


def test_the_larger_a_sample_the_fewer_go_together():
    tiles = [best_tile(64, 64, each, MEMORY) for each in (2**10, 2**19, 2**20, 2**21, 2**23)]
    together = [samples for samples, _ in tiles]
    assert together == sorted(together, reverse=True)
    assert together[0] > together[-1] == 1


def test_currents_that_are_made_of_bytes_step_by_step_are_not_held():
    b = IntegerBuilder((2, 6, 6))
    for channels in (1, 16, 16, 1):
        b.conv(channels)
        b.clip(2.0)
    b.head(1)
    snn = convert(Source(b.model(), "", []), timesteps=4, integer=True).snn
    graph, states = snn.graph(), {state.output for state in snn.states}
    graph.toposort()
    spikes = sums = 16 * 6 * 6
    assert live_bytes(graph, states) == 2 * (spikes + sums)
    graph.outputs.append(graph.tensors()[snn.current(snn.layers[2].name)])
    assert live_bytes(graph, states) > 2 * 4 * sums
