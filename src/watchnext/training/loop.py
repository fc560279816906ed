"""The training loop: passes over batches, early stopping, and going on after a kill."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import nn

from watchnext.errors import TrainingError
from watchnext.layers.tensors import training_device
from watchnext.memory import keep_freed_memory
from watchnext.progress import Bar, bar, say
from watchnext.shapes import Float, Tensor
from watchnext.training.checkpoint import Checkpoint, Position
from watchnext.training.learner import Learner, Schedule

Batch = TypeVar("Batch")

CHECKPOINT_EVERY_SECONDS = 60.0
_MOST_TIME_FOR_CHECKPOINTS = 0.05
_LOOK_AT_LOSSES_EVERY = 20


@dataclass(frozen=True)
class Task(Generic[Batch]):
    """What is learnt: the batches of a pass (from a given step on), the loss of one, and a score to stop by.

    `score` is better when higher; without one, all `max_epochs` passes are made.
    """

    name: str
    steps_per_epoch: int
    batches: Callable[[int, int], Iterator[Batch]]
    loss: Callable[[Batch], Float[Tensor, ""]]
    score: Callable[[], float] | None


@dataclass(frozen=True)
class Outcome:
    """How training went: passes made until the best score, and what each pass reached."""

    epochs: int
    losses: list[float]
    scores: list[float]
    seconds: float


def fit(
    model: nn.Module,
    task: Task[Batch],
    schedule: Schedule,
    generator: torch.Generator,
    checkpoint: Checkpoint,
) -> Outcome:
    """Trains `model` until the score stops rising; the model ends with its best weights, on the CPU.

    Goes on from `checkpoint` when it holds a run of the same purpose, and reaches the same weights as a run that
    was never interrupted.

    Raises:
        TrainingError: the loss is not finite.
    """
    began = time.monotonic()
    keep_freed_memory()
    model.to(training_device())
    learner = Learner(model, schedule)
    position = checkpoint.restore(model, learner.dense, generator) or Position()
    if position.epoch or position.step:
        say(f"{task.name}: going on after step {position.step} of pass {position.epoch + 1}")

    steps = itertools.count(position.epoch * task.steps_per_epoch + position.step)

    def save() -> None:
        checkpoint.save(position, model, learner.dense, generator)

    def step(batch: Batch) -> Tensor:
        done = next(steps)
        return learner.step(task.loss, batch, done, done / (schedule.passes_planned * task.steps_per_epoch))

    while position.epoch < schedule.max_epochs and not _out_of_patience(position, schedule, task.score is not None):
        model.train()
        with bar(f"{task.name}: pass {position.epoch + 1}", task.steps_per_epoch) as progress:
            progress.advance(position.step)
            _run_pass(task, position, step, save, progress)
        _finish_pass(model, task, position, checkpoint)
        save()
    if task.score is not None:
        checkpoint.restore_best(model)
    model.cpu().eval()
    best = _best_place(position.scores) + 1 if position.scores else position.epoch
    return Outcome(best, position.losses, position.scores, time.monotonic() - began)


def _run_pass(
    task: Task[Batch],
    position: Position,
    step: Callable[[Batch], Tensor],
    save: Callable[[], None],
    progress: Bar,
) -> None:
    saved, took = time.monotonic(), 0.0
    waiting: list[Tensor] = []
    for batch in ahead(task.batches(position.epoch, position.step)):
        waiting.append(step(batch))
        progress.advance()
        # Reading a loss waits for the accelerator, so several are read at once.
        due = time.monotonic() - saved > max(CHECKPOINT_EVERY_SECONDS, took / _MOST_TIME_FOR_CHECKPOINTS)
        if due or len(waiting) == _LOOK_AT_LOSSES_EVERY:
            _take_losses(task.name, position, waiting)
            progress.say(f"loss {position.loss_sum / position.step:.4f}")
        if due:
            began = time.monotonic()
            save()
            saved = time.monotonic()
            took = saved - began
    _take_losses(task.name, position, waiting)


def _take_losses(name: str, position: Position, waiting: list[Tensor]) -> None:
    """Counts the steps whose losses wait to be read.

    Raises:
        TrainingError: one is not finite.
    """
    for loss in torch.stack(waiting).tolist() if waiting else []:
        position.step += 1
        position.loss_sum += loss
        if not math.isfinite(loss):
            raise TrainingError(
                f"{name}: the loss of batch {position.step} of pass {position.epoch + 1} is {loss}. "
                "Lower learning_rate or embedding_learning_rate, or look for absurd values in the log's numbers."
            )
    waiting.clear()


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Gives the batches in order, the next one being made in a thread while one is used."""
    with ThreadPoolExecutor(1, "batches") as maker:
        following: Future[Batch | None] = maker.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = maker.submit(next, batches, None)
            yield batch


def _finish_pass(model: nn.Module, task: Task[Batch], position: Position, checkpoint: Checkpoint) -> None:
    position.losses.append(position.loss_sum / max(position.step, 1))
    told = f"{task.name}: pass {position.epoch + 1}, loss {position.losses[-1]:.4f}"
    if task.score is not None:
        model.eval()
        position.scores.append(task.score())
        told += f", validation {position.scores[-1]:.4f}"
        if _best_place(position.scores) == position.epoch:
            checkpoint.save_best(model)
    say(told)
    position.epoch, position.step, position.loss_sum = position.epoch + 1, 0, 0.0


def _out_of_patience(position: Position, schedule: Schedule, scored: bool) -> bool:
    return scored and bool(position.scores) and position.epoch - 1 - _best_place(position.scores) >= schedule.patience


def _best_place(scores: list[float]) -> int:
    return max(range(len(scores)), key=lambda place: (scores[place], -place))
