"""One training step: the loss of a batch, its gradients, and both optimizers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

from watchnext.layers.embedding import RowwiseAdagrad, tables_of
from watchnext.layers.tensors import device_of
from watchnext.shapes import Float, Tensor

Batch = TypeVar("Batch")

_WARM_UP_STEPS = 50


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to learn. The rates fall over `passes_planned`, of which `max_epochs` are made."""

    max_epochs: int
    patience: int
    learning_rate: float
    embedding_learning_rate: float
    passes_planned: int

    def rate(self, share_done: float, steps_done: int) -> float:
        """Gives the part of the full rates to use: a short rise, then a straight fall to one fiftieth."""
        return min(1.0, (steps_done + 1) / _WARM_UP_STEPS) * max(1.0 - share_done, 0.02)


class Learner:
    """A model with its optimizers: Adam for dense parameters, row-wise Adagrad for embedding tables."""

    def __init__(self, model: nn.Module, schedule: Schedule) -> None:
        learnt = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.model = model
        self.schedule = schedule
        self.dense = torch.optim.Adam(learnt, lr=schedule.learning_rate, fused=True)
        self.rows = RowwiseAdagrad(tables_of(model), schedule.embedding_learning_rate)

    def step(
        self, loss_of: Callable[[Batch], Float[Tensor, ""]], batch: Batch, steps_done: int, share_done: float
    ) -> Float[Tensor, ""]:
        """Learns from one batch and gives its loss, still on the device: reading it would wait for the step."""
        rate = self.schedule.rate(share_done, steps_done)
        self.dense.param_groups[0]["lr"] = rate * self.schedule.learning_rate
        self.rows.learning_rate = rate * self.schedule.embedding_learning_rate
        with mixed_precision(device_of(self.model)):
            loss = loss_of(batch)
        self.dense.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.dense.step()
        self.rows.step(steps_done)
        return loss.detach()


def mixed_precision(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 where the machine has units for it, everything else in float32."""
    fast = device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)
