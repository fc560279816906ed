"""One step: its rates, its precision, and what it leaves alone."""

import pytest
import torch

from watchnext.training.learner import Learner, Schedule, mixed_precision
from watchnext.training.loop import Task, fit


@pytest.mark.parametrize(
    ("share_done", "steps_done", "rate"),
    [
        (0.0, 0, 1 / 50),
        (0.0, 24, 0.5),
        (0.0, 49, 1.0),
        (0.25, 500, 0.75),
        (0.5, 24, 0.25),
        (0.99, 500, 0.02),
        (1.5, 500, 0.02),
    ],
)
def test_the_rate_rises_for_fifty_steps_and_falls_to_a_fiftieth(share_done, steps_done, rate):
    assert Schedule(1, 1, 1.0, 1.0, 1).rate(share_done, steps_done) == pytest.approx(rate)


def test_the_first_step_goes_a_fiftieth_of_the_rates(tiny_run, tmp_path):
    """Adam's first step moves by its rate; row-wise Adagrad's by its rate times gradient over root mean square."""
    run = tiny_run(tmp_path)
    bias, rows = run.model.out.bias.clone(), run.model.table.weight.clone()
    task = Task("tiny", 1, lambda epoch, step: iter(list(run.batches(0, 5))), run.loss, None)
    fit(run.model, task, Schedule(1, 1, 0.5, 0.2, 1), run.generator, run.checkpoint)
    assert (run.model.out.bias - bias).abs().item() == pytest.approx(0.5 / 50, rel=1e-3)
    moved = (run.model.table.weight - rows).square().mean(dim=1).sqrt()
    assert moved[moved > 0].tolist() == pytest.approx([0.2 / 50] * int((moved > 0).sum()), rel=1e-3)
    assert (moved > 0).any()


def test_frozen_parameters_stay(tiny_run, tmp_path):
    run = tiny_run(tmp_path)
    run.model.out.bias.requires_grad_(False)
    run.fit(max_epochs=1)
    assert run.model.out.bias.item() == 0.0


def test_mixed_precision_multiplies_in_bfloat16_where_the_machine_can():
    context = mixed_precision(torch.device("cpu"))
    assert isinstance(context, torch.autocast)
    with context:
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert product.dtype == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize(("supported", "kind"), [(True, torch.bfloat16), (False, torch.float32)])
def test_mixed_precision_asks_the_processor(monkeypatch, supported, kind):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    with mixed_precision(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == kind


def test_each_step_rounds_bfloat16_rows_with_noise_of_its_own(tiny_run, tmp_path):
    def rows_after_step(number):
        run = tiny_run(tmp_path, dtype=torch.bfloat16)
        run.model.train()
        # At steps 100 and 101 of very many the rates are the same.
        Learner(run.model, Schedule(1, 1, 0.02, 0.1, 1)).step(run.loss, next(run.batches(0, 0)), number, 0.0)
        return run.weights["table.weight"]

    assert rows_after_step(100) == rows_after_step(100)
    assert rows_after_step(100) != rows_after_step(101)
