"""A trained retrieval network on disk."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from watchnext.artifacts import Artifact, load_arrays, save_arrays
from watchnext.config import RetrievalConfig, from_mapping
from watchnext.examples.quantiles import Quantiles
from watchnext.retrieval.network import RetrievalNetwork, RetrievalSizes


def save_network(network: RetrievalNetwork, folder: Path) -> dict[str, Any]:
    """Writes weights and quantiles into `folder`; gives the facts that `open_network` needs besides."""
    folder.mkdir(exist_ok=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        folder / "weights.safetensors",
    )
    save_arrays(folder / "quantiles", vars(network.quantiles))
    return {"sizes": dataclasses.asdict(network.sizes)}


def open_network(artifact: Artifact, which: str = "") -> RetrievalNetwork:
    """Gives the network of a retrieval artifact, ready to serve; `which="early"` the one that teaches the ranker."""
    folder = artifact.path / which
    sizes = artifact.facts["sizes"] | {"user_categories": tuple(artifact.facts["sizes"]["user_categories"])}
    network = RetrievalNetwork(
        RetrievalSizes(**sizes),
        from_mapping(RetrievalConfig, artifact.settings, "retrieval"),
        Quantiles(**load_arrays(folder / "quantiles", ("knots", "levels"))),
        torch.Generator(),
    )
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    return network.eval()
