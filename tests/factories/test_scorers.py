"""What an evaluation is told goes into a copy of the run's config; what it would miss is told before training."""

import pytest

from fsq_repro.factories import scorers
from tests.tiny import tiny_config, tiny_uvim


def test_chosen_networks_leave_the_runs_config_as_it_was():
    config = tiny_config()
    chosen = scorers.choose_networks(config, ["alexnet", "inception"], "inception.pth")
    assert (chosen.eval.networks, chosen.eval.inception) == (("alexnet", "inception"), "inception.pth")
    assert (config.eval.networks, config.eval.inception) == (("alexnet",), "")
    assert scorers.choose_networks(config, None, None) == config


def test_depth_has_no_networks_to_choose():
    config = tiny_uvim(1).lock()
    assert scorers.choose_networks(config, ["alexnet"], "inception.pth") == config
    scorers.check_inception(config)


def test_a_missing_file_is_named():
    config = tiny_config()
    config.eval.inception = "/no/where"
    with pytest.raises(ValueError, match="eval.inception = '/no/where' is no file"):
        scorers.check_inception(config)
