"""Going on from yesterday's network: what it knows is copied by id, and what is new begins as usual."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from watchnext.errors import ConfigurationError
from watchnext.events.dataset import Dataset
from watchnext.layers.embedding import EmbeddingTable
from watchnext.retrieval.network import RetrievalNetwork
from watchnext.retrieval.user_tower import UserTower
from watchnext.retrieval.video_side import VideoTower
from watchnext.shapes import Array, Float, Int, Tensor

_COLUMNS = ("user_categories", "user_numbers", "video_categories", "video_numbers")
_SETTINGS = (
    "history", "recent_watches", "history_bags", "embedding_dim", "tower", "last_relu", "videos", "video_tower"
)  # fmt: skip
_BAGS = {"channel": "channels", "tags": "tags"}


@torch.no_grad()
def start_from(network: RetrievalNetwork, dataset: Dataset, old: RetrievalNetwork, old_dataset: Dataset) -> None:
    """Gives `network` the old one's weights: rows of tables by id, with their rates; layers as they are.

    A small vocabulary that has grown may have a longer embedding now: its first components are the old ones.

    Raises:
        ConfigurationError: the logs have other columns, or the networks other layers.
    """
    for column in _COLUMNS:
        now, then = dataset.facts[column], old_dataset.facts[column]
        if now != then:
            raise ConfigurationError(
                f"a warm start needs the same columns, but {column} are {now} and were {then}: train anew, without it."
            )
    _refuse_other_layers(network, old)
    tables, old_tables = _tables(network), _tables(old)
    for name, vocabulary in _vocabularies(network, dataset).items():
        if name not in tables or name not in old_tables:
            continue
        old_rows = dataset.vocabularies[vocabulary].rows_in(old_dataset.vocabularies[vocabulary])
        _copy_rows(old_tables[name], tables[name], old_rows)
    inputs, old_inputs = dict(_first_layers(network)), dict(_first_layers(old))
    before = dict(old.named_parameters())
    for name, parameter in network.named_parameters():
        if name in inputs:
            _copy_columns(before[name], parameter, old_inputs[name], inputs[name])
        else:
            parameter.copy_(before[name])


def _refuse_other_layers(network: RetrievalNetwork, old: RetrievalNetwork) -> None:
    """Shapes alone do not tell: a layer may be as wide as it was and read other inputs."""
    inputs = dict(_first_layers(network))
    now = {f"[retrieval] {name}": getattr(network.config, name) for name in _SETTINGS}
    then = {f"[retrieval] {name}": getattr(old.config, name) for name in _SETTINGS}
    for which, found in ((network, now), (old, then)):
        found |= {name: tuple(part.shape) for name, part in which.named_parameters() if name not in inputs}
    for name in [*now, *(then.keys() - now.keys())]:
        if now.get(name) != then.get(name):
            raise ConfigurationError(
                f"a warm start needs the same layers, but {name} is {now.get(name, 'not there')} and was "
                f"{then.get(name, 'not there')}: train anew, without it."
            )


def _tables(network: nn.Module) -> dict[str, EmbeddingTable]:
    return {name: part for name, part in network.named_modules() if isinstance(part, EmbeddingTable)}


def _vocabularies(network: RetrievalNetwork, dataset: Dataset) -> dict[str, str]:
    """The vocabulary of each embedding table, by the table's place in the network."""
    found = dict.fromkeys(
        ("users.history.watched", "users.history.shown", "users.history.events.videos", "videos", "videos.free"),
        "videos",
    )
    found["users.tokens"] = "search_tokens"
    for place, name in enumerate(network.config.history_bags):
        found[f"users.bags.{place}"] = _BAGS.get(name, f"videos.{name}")
    for place, name in enumerate(dataset.user_categories):
        found[f"users.categories.{place}"] = f"users.{name}"
    for tower in ("videos", "videos.tower"):
        found |= {f"{tower}.channels": "channels", f"{tower}.tags": "tags", f"{tower}.title": "title_tokens"}
        for place, name in enumerate(dataset.video_categories):
            found[f"{tower}.categories.{place}"] = f"videos.{name}"
    return found


def _copy_rows(old: EmbeddingTable, new: EmbeddingTable, old_rows: Int[Array, "rows"]) -> None:
    known = torch.from_numpy(np.flatnonzero(old_rows))
    rows = torch.from_numpy(old_rows[old_rows > 0])
    width = min(old.dim, new.dim)
    new.weight[known, :width] = old.weight[rows, :width].to(new.weight.dtype)
    new.squared_gradient[known] = old.squared_gradient[rows]


def _first_layers(network: RetrievalNetwork) -> Iterator[tuple[str, list[int]]]:
    """The weights that read inputs side by side, and how wide each input is."""
    for name, part in network.named_modules():
        if isinstance(part, UserTower | VideoTower):
            first = "tower.layers.0" if len(part.tower.layers) else "vector"
            yield f"{name}.{first}.weight", part.input_widths


def _copy_columns(
    old: Float[Tensor, "dim _"], new: Float[Tensor, "dim inputs"], old_widths: list[int], widths: list[int]
) -> None:
    begin, old_begin = 0, 0
    for width, old_width in zip(widths, old_widths, strict=True):
        kept = min(width, old_width)
        new[:, begin : begin + kept] = old[:, old_begin : old_begin + kept]
        begin, old_begin = begin + width, old_begin + old_width
