"""A training run's whole state on disk, so that a killed run goes on to the same weights."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from watchnext.artifacts import writing_file


@dataclass
class Position:
    """Where a run stands: `step` batches of pass `epoch` are done, `scores` has one entry per finished pass."""

    epoch: int = 0
    step: int = 0
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_sum: float = 0.0


class Checkpoint:
    """The folder of one run's state; `purpose` names dataset and settings, and another purpose starts anew."""

    def __init__(self, folder: Path, purpose: str) -> None:
        self.folder = folder
        self.purpose = purpose

    def save(
        self,
        position: Position,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        """Replaces the saved state with this one, in one rename."""
        state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for place, values in optimizer.state_dict()["state"].items():
            state |= {f"optimizer.{place}.{name}": torch.as_tensor(value) for name, value in values.items()}
        state["generator"] = generator.get_state()
        about = {"purpose": self.purpose, "position": json.dumps(asdict(position))}
        with writing_file(self.folder / "state.safetensors") as aside:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, aside, metadata=about)

    def restore(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> Position | None:
        """Puts the saved state into model, optimizer and generator; `None` where none of this purpose is saved."""
        file = self.folder / "state.safetensors"
        position = self._position(file)
        if position is None:
            return None
        state = load_file(file)
        model.load_state_dict(
            {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        )
        whole = optimizer.state_dict()
        whole["state"] = _optimizer_state(state)
        optimizer.load_state_dict(whole)
        generator.set_state(state["generator"])
        return position

    def save_best(self, model: nn.Module) -> None:
        """Keeps the weights as the best so far."""
        with writing_file(self.folder / "best.safetensors") as aside:
            save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, aside)

    def restore_best(self, model: nn.Module) -> None:
        """Puts the best weights into the model."""
        model.load_state_dict(load_file(self.folder / "best.safetensors"))

    def _position(self, file: Path) -> Position | None:
        if not file.is_file():
            return None
        with safe_open(file, framework="pt") as saved:
            about = saved.metadata()
        return Position(**json.loads(about["position"])) if about["purpose"] == self.purpose else None


def _optimizer_state(state: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    found: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in state.items():
        if name.startswith("optimizer."):
            _, place, key = name.split(".")
            found.setdefault(int(place), {})[key] = value
    return found
