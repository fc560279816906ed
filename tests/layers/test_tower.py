import math

import pytest
import torch
from torch.testing import assert_close

from watchnext.layers.tower import Tower, linear


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def inputs(rows=64, width=6):
    return torch.randn((rows, width), generator=seeded(1))


def test_no_widths_make_the_identity():
    tower = Tower(6, (), seeded(), dropout=0.5)
    assert torch.equal(tower(inputs()), inputs())
    assert tower.num_outputs == 6


def test_each_layer_is_linear_then_relu():
    tower = Tower(6, (5, 3), seeded()).eval()
    first, second = tower.layers
    hidden = (inputs() @ first.weight.T + first.bias).clamp(min=0)
    assert_close(tower(inputs()), (hidden @ second.weight.T + second.bias).clamp(min=0))
    assert tower.num_outputs == 3


def test_the_last_layer_may_stay_linear():
    tower = Tower(6, (5, 3), seeded(), last_relu=False).eval()
    first, second = tower.layers
    hidden = (inputs() @ first.weight.T + first.bias).clamp(min=0)
    assert_close(tower(inputs()), hidden @ second.weight.T + second.bias)
    assert (tower(inputs()) < 0).any()


def test_a_linear_last_layer_is_not_thinned():
    tower = Tower(6, (3,), seeded(), dropout=0.5, last_relu=False).train()
    assert (tower(inputs()) != 0).all()


def test_dropout_acts_only_when_training():
    tower = Tower(6, (32,), seeded(), dropout=0.5)
    assert torch.equal(tower.eval()(inputs()), tower(inputs()))
    assert not torch.equal(tower.train()(inputs()), tower(inputs()))


def test_dropout_keeps_its_share_and_the_scale():
    tower = Tower(6, (500,), seeded(), dropout=0.2)
    whole, thinned = tower.eval()(inputs()), tower.train()(inputs())
    kept = thinned[whole > 0] != 0
    assert kept.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert_close(thinned[whole > 0][kept], whole[whole > 0][kept] / 0.8)


def test_without_dropout_training_equals_serving_and_draws_nothing():
    generator = seeded()
    tower = Tower(6, (5,), generator)
    state = generator.get_state()
    assert torch.equal(tower.train()(inputs()), tower.eval()(inputs()))
    assert torch.equal(generator.get_state(), state)


def test_the_same_generator_gives_the_same_tower_and_the_same_dropout():
    one, other = (Tower(6, (16, 4), seeded(3), dropout=0.5).train() for _ in range(2))
    for _ in range(3):
        assert torch.equal(one(inputs()), other(inputs()))


def test_global_randomness_plays_no_part():
    torch.manual_seed(1)
    one = Tower(6, (16,), seeded(3), dropout=0.5).train()(inputs())
    torch.manual_seed(2)
    assert torch.equal(Tower(6, (16,), seeded(3), dropout=0.5).train()(inputs()), one)


def test_initial_weights_are_uniform_within_hes_bound_and_the_bias_is_zero():
    layer = linear(150, 400, seeded())
    bound = math.sqrt(6 / 150)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.01)
    assert not layer.bias.any()
