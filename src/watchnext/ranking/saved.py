"""A trained ranking network on disk."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from watchnext.artifacts import Artifact, load_arrays, save_arrays
from watchnext.config import RankingConfig, from_mapping
from watchnext.examples.quantiles import Quantiles
from watchnext.ranking.network import RankingNetwork, RankingSizes


def save_network(network: RankingNetwork, folder: Path) -> dict[str, Any]:
    """Writes weights and quantiles into `folder`; gives the facts that `open_network` needs besides."""
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        folder / "weights.safetensors",
    )
    save_arrays(folder / "query_quantiles", vars(network.query_quantiles))
    save_arrays(folder / "quantiles", vars(network.quantiles))
    return {"sizes": dataclasses.asdict(network.sizes)}


def open_network(artifact: Artifact) -> RankingNetwork:
    """Gives the network of a ranking artifact, ready to serve."""
    saved: dict[str, Any] = artifact.facts["sizes"]
    sizes: dict[str, Any] = {name: tuple(size) if isinstance(size, list) else size for name, size in saved.items()}
    network = RankingNetwork(
        RankingSizes(**sizes),
        from_mapping(RankingConfig, artifact.settings, "ranking"),
        Quantiles(**load_arrays(artifact.path / "query_quantiles", ("knots", "levels"))),
        Quantiles(**load_arrays(artifact.path / "quantiles", ("knots", "levels"))),
        torch.Generator(),
    )
    network.load_state_dict(load_file(artifact.path / "weights.safetensors"))
    return network.eval()
