"""The loop on a tiny model: order, stopping, and that a kill changes nothing."""

import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from watchnext.errors import TrainingError
from watchnext.training import loop
from watchnext.training.checkpoint import Checkpoint
from watchnext.training.learner import Schedule
from watchnext.training.loop import Task, ahead, fit


def checkpoint_at_every_step(monkeypatch):
    monkeypatch.setattr(loop, "CHECKPOINT_EVERY_SECONDS", -1.0)
    monkeypatch.setattr(loop, "_MOST_TIME_FOR_CHECKPOINTS", math.inf)


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


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_stops_and_names_batch_and_pass(tiny_run, tmp_path, bad):
    run, calls = tiny_run(tmp_path), []

    def loss(rows):
        calls.append(1)
        return run.loss(rows) * (bad if len(calls) == 6 + 3 else 1.0)

    with pytest.raises(TrainingError, match=r"tiny: the loss of batch 3 of pass 2 is -?(nan|inf)"):
        run.fit(loss=loss)


def test_losses_are_read_twenty_at_once_and_a_bad_one_still_names_its_own_batch(tiny_run, tmp_path):
    run, calls = tiny_run(tmp_path, batch_size=2), []

    def loss(rows):
        calls.append(1)
        return run.loss(rows) * (math.nan if len(calls) == 23 else 1.0)

    with pytest.raises(TrainingError, match="batch 23 of pass 1 is nan"):
        run.fit(loss=loss)
    assert len(calls) == 40


def test_a_checkpoint_never_holds_what_came_of_a_bad_loss(tiny_run, tmp_path, monkeypatch):
    checkpoint_at_every_step(monkeypatch)
    run, calls = tiny_run(tmp_path), []

    def loss(rows):
        calls.append(1)
        return run.loss(rows) * (math.nan if len(calls) == 3 else 1.0)

    with pytest.raises(TrainingError, match="batch 3 of pass 1 is nan"):
        run.fit(loss=loss)
    assert len(calls) == 3
    saved = tiny_run(tmp_path)
    position = saved.checkpoint.restore(saved.model, torch.optim.Adam(saved.model.parameters()), saved.generator)
    assert position.step == 2
    assert all(tensor.isfinite().all() for tensor in saved.model.state_dict().values())


def test_ahead_keeps_the_order():
    assert list(ahead(iter(range(50)))) == list(range(50))
    assert list(ahead(iter([]))) == []


def test_ahead_makes_the_next_one_in_another_thread_while_one_is_used():
    made = [threading.Event() for _ in range(3)]
    makers = set()

    def batches():
        for place, event in enumerate(made):
            makers.add(threading.get_ident())
            event.set()
            yield place

    for batch in ahead(batches()):
        assert batch == 2 or made[batch + 1].wait(timeout=10)
    assert len(makers) == 1 and threading.get_ident() not in makers


def test_ahead_passes_an_exception_on_behind_what_came_before_it():
    def batches():
        yield 1
        yield 2
        raise LookupError("the log is gone")

    seen = []
    with pytest.raises(LookupError, match="the log is gone"):
        for batch in ahead(batches()):
            seen.append(batch)
    assert seen == [1, 2]


def test_ahead_makes_nothing_more_once_nobody_listens():
    made = []

    def batches():
        for place in range(100):
            made.append(place)
            yield place

    listening = ahead(batches())
    assert next(listening) == 0
    listening.close()
    assert len(made) <= 2 and not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]


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
@pytest.mark.parametrize("often", [True, False], ids=["after every batch", "after every pass"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_killed_run_goes_on_to_the_same_weights(tiny_run, tmp_path, monkeypatch, kill, scored, often, dtype):
    if often:
        checkpoint_at_every_step(monkeypatch)
    straight = tiny_run(tmp_path / "straight", dtype=dtype)
    expected = straight.fit(scored=scored)

    killed = tiny_run(tmp_path / "killed", dtype=dtype)
    kill(killed)
    with pytest.raises(Killed):
        killed.fit(scored=scored)
    resumed = tiny_run(tmp_path / "killed", seed=99, dtype=dtype)
    outcome = resumed.fit(scored=scored)

    assert resumed.steps[0] > (0, 0)
    assert resumed.weights == straight.weights
    assert (outcome.epochs, outcome.losses, outcome.scores) == (expected.epochs, expected.losses, expected.scores)


def test_a_run_killed_twice_goes_on_to_the_same_weights(tiny_run, tmp_path, monkeypatch):
    checkpoint_at_every_step(monkeypatch)
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


def steps_saved(run, monkeypatch, saving_takes):
    """The steps after which a pass of batches, 31 seconds each, wrote a checkpoint."""
    now, positions = [0.0], []
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def save(position, *rest):
        positions.append(position.step)
        now[0] += saving_takes

    def loss(rows):
        now[0] += 31.0
        return run.loss(rows)

    run.checkpoint.save = save
    run.fit(max_epochs=1, scored=False, loss=loss)
    assert positions.pop() == 0  # the pass is over
    return positions


def test_a_checkpoint_is_written_every_minute(tiny_run, tmp_path, monkeypatch):
    assert steps_saved(tiny_run(tmp_path), monkeypatch, saving_takes=0.0) == [2, 4, 6]


def test_checkpoints_that_take_long_are_made_rarer(tiny_run, tmp_path, monkeypatch):
    # One takes 10 seconds: the next comes after 200, in the seventh batch.
    run = tiny_run(tmp_path, batch_size=4)
    assert steps_saved(run, monkeypatch, saving_takes=10.0) == [2, 9, 16, 23]


CHILD = """
import math, os, runpy, signal, sys
from pathlib import Path
import torch
from watchnext.training import checkpoint, loop

conftest, folder, dies_in_save = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
loop.CHECKPOINT_EVERY_SECONDS = 0.0
loop._MOST_TIME_FOR_CHECKPOINTS = math.inf
save_file, saves = checkpoint.save_file, []

def save(tensors, file, metadata=None):
    saves.append(file)
    save_file(tensors, file, metadata=metadata)
    if len(saves) == dies_in_save:
        os.truncate(file, file.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    if metadata:
        print("saving", flush=True)

checkpoint.save_file = save
run = runpy.run_path(conftest)["TinyRun"](folder, dtype=torch.bfloat16, batch_size=2)
run.fit(max_epochs=PASSES)
print("finished", flush=True)
"""
PASSES = 3


def killed_child(folder, after_saves, dies_in_save=0):
    """Trains in another process and kills it with SIGKILL, in the middle of a step after so many checkpoints."""
    conftest = Path(__file__).with_name("conftest.py")
    program = textwrap.dedent(CHILD).replace("PASSES", str(PASSES))
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(conftest), str(folder), str(dies_in_save)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    with child, child.stdout as told:
        seen = 0
        for line in told:
            assert line == "saving\n"
            seen += 1
            if seen == after_saves:
                child.kill()
                break
    assert child.returncode == -signal.SIGKILL


@pytest.mark.parametrize("dies_while_writing", [False, True])
def test_a_process_killed_without_warning_goes_on_to_the_same_weights(tiny_run, tmp_path, dies_while_writing):
    chosen = random.Random(int(dies_while_writing)).randrange(5, 100)
    if dies_while_writing:
        killed_child(tmp_path / "killed", 10**9, dies_in_save=chosen)
        assert list((tmp_path / "killed").glob(".*.unfinished"))
    else:
        killed_child(tmp_path / "killed", chosen)
    straight = tiny_run(tmp_path / "straight", dtype=torch.bfloat16, batch_size=2)
    expected = straight.fit(max_epochs=PASSES)
    resumed = tiny_run(tmp_path / "killed", seed=99, dtype=torch.bfloat16, batch_size=2)
    outcome = resumed.fit(max_epochs=PASSES)
    assert (0, 0) < resumed.steps[0] < (PASSES - 1, 47)
    assert resumed.weights == straight.weights
    assert (outcome.epochs, outcome.losses, outcome.scores) == (expected.epochs, expected.losses, expected.scores)


def test_a_finished_run_learns_nothing_more(tiny_run, tmp_path):
    first, again = tiny_run(tmp_path), tiny_run(tmp_path, seed=99)
    expected, outcome = first.fit(), again.fit()
    assert again.steps == []
    assert again.weights == first.weights
    assert (outcome.epochs, outcome.losses, outcome.scores) == (expected.epochs, expected.losses, expected.scores)


def test_a_resumed_run_says_so(tiny_run, tmp_path, monkeypatch, capsys):
    checkpoint_at_every_step(monkeypatch)
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
