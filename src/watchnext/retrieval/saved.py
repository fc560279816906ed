"""A trained retrieval network on disk: user tower, video side, and the exported vectors of all videos."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from watchnext.artifacts import Artifact, load_arrays, save_arrays
from watchnext.config import RetrievalConfig, from_mapping
from watchnext.events.dataset import VideoTable
from watchnext.examples.quantiles import Quantiles
from watchnext.layers.embedding import UNFILLED
from watchnext.layers.tensors import device_of
from watchnext.retrieval.calibration import Calibration
from watchnext.retrieval.index.exact import open_vectors
from watchnext.retrieval.network import RetrievalModel, RetrievalNetwork
from watchnext.retrieval.sizes import RetrievalSizes
from watchnext.retrieval.user_tower import UserTower
from watchnext.retrieval.video_side import VideoTower, all_vectors


def save_network(network: RetrievalNetwork, folder: Path) -> dict[str, Any]:
    """Writes weights, quantiles and video vectors into `folder`; gives the facts needed to open them."""
    folder.mkdir(exist_ok=True)
    for name, part in (("users", network.users), ("videos", network.videos)):
        weights = {key: tensor.contiguous() for key, tensor in part.state_dict().items()}
        save_file(weights, folder / f"{name}.safetensors")
    save_arrays(folder / "user_quantiles", vars(network.users.quantiles))
    save_arrays(folder / "video_quantiles", vars(network.video_quantiles))
    all_vectors(network.videos, network.sizes.num_videos, device_of(network), folder / "vectors.npy")
    return {"sizes": dataclasses.asdict(network.sizes)}


def open_model(artifact: Artifact, videos: VideoTable, which: str = "") -> RetrievalModel:
    """Gives what serves, video vectors mapped; `which="early"` the model that teaches the ranker."""
    folder = artifact.path / which
    sizes, config = sizes_and_config(artifact)
    users = UserTower(sizes, config, _quantiles(folder, "user"), videos, torch.Generator(), UNFILLED)
    put_weights(users, load_file(folder / "users.safetensors"))
    return RetrievalModel(users.eval(), open_vectors(folder), Calibration(**artifact.facts["calibration"]))


def open_network(artifact: Artifact, videos: VideoTable, which: str = "") -> RetrievalNetwork:
    """Gives user tower and video side, to go on training or to give vectors to new uploads."""
    folder = artifact.path / which
    sizes, config = sizes_and_config(artifact)
    user_quantiles, video_quantiles = _quantiles(folder, "user"), _quantiles(folder, "video")
    network = RetrievalNetwork(sizes, config, user_quantiles, video_quantiles, videos, torch.Generator(), UNFILLED)
    put_weights(network.users, load_file(folder / "users.safetensors"))
    put_weights(network.videos, load_file(folder / "videos.safetensors"))
    return network.eval()


def open_video_tower(artifact: Artifact, videos: VideoTable) -> VideoTower | None:
    """Gives what makes vectors of new uploads; None where every video has a free vector alone."""
    sizes, config = sizes_and_config(artifact)
    if config.videos == "free":
        return None
    prefix = "" if config.videos == "tower" else "tower."
    tower = VideoTower(config, sizes, videos, _quantiles(artifact.path, "video"), torch.Generator())
    with safe_open(artifact.path / "videos.safetensors", "pt") as weights:
        wanted = {name: weights.get_tensor(name) for name in weights.keys() if name.startswith(prefix)}
    put_weights(tower, {name.removeprefix(prefix): weight for name, weight in wanted.items()})
    return tower.eval()


def sizes_and_config(artifact: Artifact) -> tuple[RetrievalSizes, RetrievalConfig]:
    """Gives what a retrieval artifact says of its networks."""
    config = from_mapping(RetrievalConfig, artifact.settings, "retrieval")
    return RetrievalSizes.from_facts(artifact.facts["sizes"]), config


def put_weights(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Makes the saved tensors those of the module, without a copy."""
    module.load_state_dict(weights, assign=True)


def _quantiles(folder: Path, whose: str) -> Quantiles:
    return Quantiles(**load_arrays(folder / f"{whose}_quantiles", ("knots", "levels")))
