"""A tiny model with everything that has state: a table, a tower with dropout, a generator that the loss draws from."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from watchnext.layers.embedding import EmbeddingTable, TableStorage
from watchnext.layers.tower import Tower, linear
from watchnext.training.checkpoint import Checkpoint
from watchnext.training.learner import Schedule
from watchnext.training.loop import Task, fit

ROWS = 96
ROWS_OF = np.random.default_rng(0).integers(0, 20, (ROWS, 3))


class TinyModel(nn.Module):
    """Learns the sum of its ids."""

    def __init__(self, generator, dtype):
        super().__init__()
        self.table = EmbeddingTable(20, 4, generator, storage=TableStorage(dtype))
        self.tower = Tower(8, (16,), generator, dropout=0.2)
        self.out = linear(16, 1, generator)

    def forward(self, rows):
        return self.out(self.tower(torch.cat([self.table.mean(rows), self.table(rows[:, 0])], dim=1)))[:, 0]


class TinyRun:
    """One training run; `before_batch(epoch, step)` is called before each batch is given."""

    def __init__(self, folder, purpose="the tiny world", seed=0, dtype=torch.float32, batch_size=16):
        self.generator = torch.Generator().manual_seed(seed)
        self.model = TinyModel(self.generator, dtype)
        self.batch_size = batch_size
        self.checkpoint = Checkpoint(folder, purpose)
        self.steps = []

    def batches(self, epoch, first_step):
        order = np.random.default_rng([1, epoch]).permutation(ROWS)
        for step in range(first_step, ROWS // self.batch_size):
            self.before_batch(epoch, step)
            self.steps.append((epoch, step))
            yield torch.from_numpy(ROWS_OF[order[step * self.batch_size :][: self.batch_size]])

    def before_batch(self, epoch, step):
        """Nothing; tests put a kill here."""

    def loss(self, rows):
        noise = 0.1 * torch.randn(len(rows), generator=self.generator)
        return functional.mse_loss(self.model(rows).float(), rows.sum(dim=1) / 20 + noise)

    def score(self):
        with torch.inference_mode():
            rows = torch.from_numpy(ROWS_OF)
            return -functional.mse_loss(self.model(rows).float(), rows.sum(dim=1) / 20).item()

    def fit(self, max_epochs=4, patience=9, scored=True, **changes):
        parts = {"batches": self.batches, "loss": self.loss, "score": self.score if scored else None, **changes}
        task = Task("tiny", ROWS // self.batch_size, **parts)
        schedule = Schedule(max_epochs, patience, 0.02, 0.1, passes_planned=max_epochs)
        return fit(self.model, task, schedule, self.generator, self.checkpoint)

    @property
    def weights(self):
        """Everything learnt, as bytes."""
        return {
            name: tensor.contiguous().view(torch.uint8).numpy().tobytes()
            for name, tensor in self.model.state_dict().items()
        }


@pytest.fixture
def tiny_run():
    return TinyRun
