"""Towers of fully connected ReLU layers (§3.2, §4.3)."""

import math

import torch
from torch import nn

from watchnext.layers.tensors import kept_at_random
from watchnext.shapes import Float, Tensor


class Tower(nn.Module):
    """Layers of the given widths, a ReLU behind each; no widths make it the identity.

    `last_relu=False` leaves the last layer linear.
    """

    def __init__(
        self,
        num_inputs: int,
        widths: tuple[int, ...],
        generator: torch.Generator,
        dropout: float = 0.0,
        last_relu: bool = True,
    ) -> None:
        super().__init__()
        sizes = (num_inputs, *widths)
        self.layers = nn.ModuleList(
            linear(before, after, generator) for before, after in zip(sizes, widths, strict=False)
        )
        self.dropout = dropout
        self.generator = generator
        self.last_relu = last_relu
        self.num_outputs = sizes[-1]

    def forward(self, inputs: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch dim"]:
        """Gives the activations of the last layer."""
        activations = inputs
        for place, layer in enumerate(self.layers, start=1):
            activations = layer(activations)
            if place < len(self.layers) or self.last_relu:
                activations = self._thinned(torch.relu(activations))
        return activations

    def _thinned(self, activations: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Dropout that draws from the tower's own generator, so that a resumed run draws the same."""
        if not self.training or self.dropout == 0.0:
            return activations
        kept = kept_at_random(activations.shape, self.dropout, self.generator).to(activations)
        return activations * kept / (1.0 - self.dropout)


def linear(num_inputs: int, num_outputs: int, generator: torch.Generator) -> nn.Linear:
    """Gives a linear layer with He's initial weights and no bias yet, drawn from `generator`."""
    layer = nn.Linear(num_inputs, num_outputs, device="meta")  # whose weights nobody draws
    layer.weight, layer.bias = (
        nn.Parameter(torch.empty(num_outputs, num_inputs)),
        nn.Parameter(torch.empty(num_outputs)),
    )
    bound = math.sqrt(6.0 / num_inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.zero_()
    return layer
