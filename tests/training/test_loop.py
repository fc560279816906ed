import math

import pytest
import torch

from watchnext.errors import TrainingError
from watchnext.training import loop
from watchnext.training.checkpoint import Checkpoint
from watchnext.training.loop import Schedule, Task, fit, mixed_precision


def test_the_loss_falls(tiny_run, tmp_path):
    outcome = tiny_run(tmp_path).fit(max_epochs=40, scored=False)
    assert outcome.losses[-1] < 0.1 * outcome.losses[0]


def test_every_batch_of_every_pass_is_seen_once(tiny_run, tmp_path):
    run = tiny_run(tmp_path)
    run.fit(max_epochs=3)
    assert run.steps == [(epoch, step) for epoch in range(3) for step in range(6)]


def test_an_outcome_tells_what_each_pass_reached(tiny_run, tmp_path):
    losses = iter([2.0, 4.0, 3.0, 3.0, 3.0, 9.0, *[1.0] * 6])
    run = tiny_run(tmp_path)
    scores = iter([0.5, 0.7])
    outcome = run.fit(max_epochs=2, loss=lambda rows: run.loss(rows) * 0 + next(losses), score=lambda: next(scores))
    assert outcome.losses == pytest.approx([4.0, 1.0])
    assert outcome.scores == [0.5, 0.7]
    assert outcome.epochs == 2
    assert 0 <= outcome.seconds < 60


def test_without_a_score_all_passes_are_made_and_the_last_weights_stay(tiny_run, tmp_path):
    run, seen = tiny_run(tmp_path), []
    outcome = run.fit(max_epochs=3, scored=False, loss=lambda rows: seen.append(run.weights) or run.loss(rows))
    assert (outcome.epochs, len(outcome.losses), outcome.scores) == (3, 3, [])
    assert run.weights not in seen
    assert not (tmp_path / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("scores", "patience", "passes", "best"),
    [
        ([1, 3, 2, 2, 9], 1, 3, 2),
        ([1, 3, 2, 2, 9], 2, 4, 2),
        ([1, 3, 2, 2, 9], 3, 5, 5),
        ([5, 4, 3, 2, 1], 1, 2, 1),
        ([2, 2, 2, 2, 2], 2, 3, 1),  # an equal score is no better one
        ([1, 2, 3, 4, 5], 1, 5, 5),
    ],
)
def test_training_stops_out_of_patience_and_ends_with_the_best_weights(
    tiny_run, tmp_path, scores, patience, passes, best
):
    run, snapshots = tiny_run(tmp_path), []

    def score():
        assert not run.model.training
        snapshots.append(run.weights)
        return float(scores[len(snapshots) - 1])

    outcome = run.fit(max_epochs=5, patience=patience, score=score)
    assert len(snapshots) == passes
    assert outcome.epochs == best
    assert outcome.scores == scores[:passes]
    assert run.weights == snapshots[best - 1]
    assert len({snapshot["out.weight"] for snapshot in snapshots}) == passes


def test_a_fitted_model_no_longer_trains(tiny_run, tmp_path):
    run = tiny_run(tmp_path)
    run.fit(max_epochs=1, score=lambda: 1.0)
    assert not run.model.training


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


def test_the_rate_follows_the_share_of_the_planned_passes(tiny_run, tmp_path):
    asked = []

    class Recorded(Schedule):
        def rate(self, share_done, steps_done):
            asked.append((share_done, steps_done))
            return 1.0

    run = tiny_run(tmp_path)
    task = Task("tiny", 6, run.batches, run.loss, None)
    fit(run.model, task, Recorded(2, 1, 0.1, 0.1, passes_planned=4), run.generator, run.checkpoint)
    assert asked == [(pytest.approx(step / 24), step) for step in range(12)]


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_and_names_batch_and_pass(tiny_run, tmp_path, bad):
    run = tiny_run(tmp_path)

    def loss(rows):
        return run.loss(rows) * (bad if run.steps[-1] == (1, 2) else 1.0)

    with pytest.raises(TrainingError, match=r"tiny: the loss of batch 3 of pass 2 is -?(nan|inf)"):
        run.fit(loss=loss)


class Killed(BaseException):
    """Like a kill: nothing in the loop catches it."""


def killed_in_a_batch(run):
    def before_batch(epoch, step):
        if (epoch, step) == (1, 3):
            raise Killed

    run.before_batch = before_batch


def killed_between_passes(run):
    def before_batch(epoch, step):
        if (epoch, step) == (2, 0):
            raise Killed

    run.before_batch = before_batch


def killed_while_scoring(run):
    score, calls = run.score, []

    def killing():
        calls.append(1)
        if len(calls) == 2:
            raise Killed
        return score()

    run.score = killing


def killed_behind_the_best(run):
    """The best weights are on disk, the position that knows of them is not."""
    save_best, calls = run.checkpoint.save_best, []

    def killing(model):
        save_best(model)
        calls.append(1)
        if len(calls) == 2:
            raise Killed

    run.checkpoint.save_best = killing


@pytest.mark.parametrize(
    ("kill", "scored"),
    [
        (killed_in_a_batch, True),
        (killed_in_a_batch, False),
        (killed_between_passes, True),
        (killed_between_passes, False),
        (killed_while_scoring, True),
        (killed_behind_the_best, True),
    ],
)
@pytest.mark.parametrize("every_seconds", [-1.0, 3600.0], ids=["after every batch", "after every pass"])
def test_a_killed_run_goes_on_to_the_same_weights(tiny_run, tmp_path, monkeypatch, kill, scored, every_seconds):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", every_seconds)
    straight = tiny_run(tmp_path / "straight")
    expected = straight.fit(scored=scored)

    killed = tiny_run(tmp_path / "killed")
    kill(killed)
    with pytest.raises(Killed):
        killed.fit(scored=scored)
    resumed = tiny_run(tmp_path / "killed", seed=99)
    outcome = resumed.fit(scored=scored)

    assert resumed.steps[0] > (0, 0)
    assert resumed.weights == straight.weights
    assert (outcome.epochs, outcome.losses, outcome.scores) == (expected.epochs, expected.losses, expected.scores)


def test_a_run_killed_twice_goes_on_to_the_same_weights(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", -1.0)
    straight = tiny_run(tmp_path / "straight")
    straight.fit()
    for kill in (killed_in_a_batch, killed_between_passes):
        run = tiny_run(tmp_path / "killed")
        kill(run)
        with pytest.raises(Killed):
            run.fit()
    resumed = tiny_run(tmp_path / "killed")
    resumed.fit()
    assert resumed.weights == straight.weights


def test_a_checkpoint_is_written_once_the_time_has_come(tiny_run, tmp_path, monkeypatch):
    clock, positions = [0.0], []
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    run = tiny_run(tmp_path)
    save = run.checkpoint.save
    run.checkpoint.save = lambda position, *rest: (
        positions.append((position.epoch, position.step)) or save(position, *rest)
    )
    run.before_batch = lambda epoch, step: clock.__setitem__(0, clock[0] + 31.0)
    run.fit(max_epochs=1)
    assert positions == [(0, 2), (0, 4), (0, 6), (1, 0)]


def test_a_finished_run_learns_nothing_more(tiny_run, tmp_path):
    first, again = tiny_run(tmp_path), tiny_run(tmp_path, seed=99)
    expected, outcome = first.fit(), again.fit()
    assert again.steps == []
    assert again.weights == first.weights
    assert (outcome.epochs, outcome.losses, outcome.scores) == (expected.epochs, expected.losses, expected.scores)


def test_a_resumed_run_says_so(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", -1.0)
    run = tiny_run(tmp_path)
    killed_in_a_batch(run)
    with pytest.raises(Killed):
        run.fit()
    assert "going on" not in capsys.readouterr().err
    tiny_run(tmp_path).fit()
    assert "tiny: going on after step 3 of pass 2" in capsys.readouterr().err


def test_a_run_of_another_purpose_starts_anew(tiny_run, tmp_path):
    fresh = tiny_run(tmp_path / "fresh")
    fresh.fit(max_epochs=2)
    tiny_run(tmp_path / "used", purpose="other settings", seed=5).fit(max_epochs=3)
    run = tiny_run(tmp_path / "used")
    run.fit(max_epochs=2)
    assert run.weights == fresh.weights
    assert run.checkpoint.purpose == "the tiny world" and isinstance(run.checkpoint, Checkpoint)


def test_each_pass_is_told(tiny_run, tmp_path, capsys):
    scores = iter([0.25, 0.125])
    tiny_run(tmp_path).fit(max_epochs=2, score=lambda: next(scores))
    told = capsys.readouterr().err
    assert "tiny: pass 1, loss " in told and "validation 0.2500" in told and "tiny: pass 2, loss " in told


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
