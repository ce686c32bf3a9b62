"""Drawings trace back what an output reads."""

import numpy as np
import pytest

from convmat.networks import Network
from convmat.networks._builder import Builder
from convmat.networks._draw import trace
from tests.networks.graphs import GRAPHS, built


@pytest.mark.parametrize("name", GRAPHS)
def test_what_is_traced_back_is_all_that_changes_an_output(name):
    net = built(name)
    rng = np.random.default_rng(0)
    for output in rng.choice(np.prod(net.output_shape), 3, replace=False):
        reads = trace(net.stages, net._target, int(output))[0]
        seen = np.zeros(reads.size, bool)
        for _ in range(5):
            seen |= net.at(rng.standard_normal(net.input_shape)).matrix.tocsr((output, output + 1)).toarray()[0] != 0
        assert (reads | ~seen).all()
        x = rng.standard_normal(net.input_shape)
        other = x.ravel().copy()
        other[~reads] += 1.0
        assert net(x).ravel()[output] == pytest.approx(net(other.reshape(x.shape)).ravel()[output], abs=1e-12)


@pytest.mark.filterwarnings("ignore")  # of an old matplotlib's own
def test_a_panel_for_each_matrix():
    pytest.importorskip("matplotlib")
    net = built("skip")
    figure = net.draw(3)
    drawn = [panel for panel in figure.axes if panel.images]
    assert len(drawn) == sum(stage.is_affine for stage in net.stages)
    assert "Output 3 of 120" in figure.get_suptitle()
    assert any((np.asarray(panel.images[0].get_array()) == 2).any() for panel in drawn)
    assert net.draw(figure=figure) is figure
    with pytest.raises(ValueError, match="output must be less than 120, the number of outputs, got 120"):
        net.draw(120)


@pytest.mark.filterwarnings("ignore")  # of an old matplotlib's own
def test_a_single_number_is_traced_back():
    pytest.importorskip("matplotlib")
    builder = Builder((1, 2, 3), np.float64)
    total = builder.reduce("total", "ReduceSum", builder.input, (0, 1, 2), False, False)
    net = Network(builder.stages, builder.input, total, np.float64, ((2, 3), ()))
    assert net(np.ones((4, 2, 3))).tolist() == [6.0] * 4
    assert "reads 6 numbers" in net.draw().get_suptitle()
