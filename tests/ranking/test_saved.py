import numpy as np

from watchnext.artifacts import open_artifact, writing
from watchnext.ranking.saved import open_network, save_network


def test_an_opened_network_gives_the_same_predictions(make_network, make_inputs, tmp_path):
    network = make_network(watch_unit_seconds=7.0)
    network.start_from_mean(np.array([10.0, 500.0]))
    facts = {}
    with writing(tmp_path / "ranking", "ranking", settings=network.config, facts=facts) as folder:
        facts |= save_network(network, folder)
    opened = open_network(open_artifact(tmp_path / "ranking", "ranking"))
    assert not opened.training
    assert opened.config == network.config and opened.sizes == network.sizes
    inputs = make_inputs(5, 4)
    np.testing.assert_array_equal(opened.expected_watch_seconds(inputs), network.expected_watch_seconds(inputs))
