"""A trained ranking network on disk, with what it said of a few impressions: whoever serves it must say the same."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from watchnext.artifacts import Artifact, load_arrays, save_arrays
from watchnext.config import RankingConfig, from_mapping
from watchnext.errors import ArtifactError
from watchnext.examples.quantiles import Quantiles
from watchnext.features.inputs import RankingInputs
from watchnext.layers.embedding import UNFILLED
from watchnext.ranking.network import Predictions, RankingNetwork, RankingSizes
from watchnext.ranking.runtime import Ranker

_PROBE_LENGTH = 64
_SHARE_BORNE = {"float32": 1e-4, "bfloat16": 0.02, "int8": 0.02}
"""By how much predictions may differ from the training code's, all differences together.

A trained network in bfloat16 or int8 differs by a thousandth, float32 on another processor by a millionth.
"""


def save_network(network: RankingNetwork, folder: Path, probe: RankingInputs) -> dict[str, Any]:
    """Writes weights and quantiles into `folder`, and up to 64 impressions of `probe` with what the network says.

    Gives the facts that `open_ranker` needs besides.
    """
    save_file(
        {name: tensor.contiguous() for name, tensor in network.state_dict().items()},
        folder / "weights.safetensors",
    )
    save_arrays(folder / "query_quantiles", vars(network.query_quantiles))
    save_arrays(folder / "quantiles", vars(network.quantiles))
    some = probe.part(np.linspace(0, len(probe) - 1, min(len(probe), _PROBE_LENGTH)).astype(np.int64))
    save_arrays(folder / "probe", vars(some) | vars(network.predictions(some)))
    return {"sizes": dataclasses.asdict(network.sizes)}


def open_ranker(artifact: Artifact) -> Ranker:
    """Gives what serves the network of a ranking artifact.

    Raises:
        ArtifactError: it predicts something else than the training code did.
    """
    saved: dict[str, Any] = artifact.facts["sizes"]
    sizes: dict[str, Any] = {name: tuple(size) if isinstance(size, list) else size for name, size in saved.items()}
    network = RankingNetwork(
        RankingSizes(**sizes),
        from_mapping(RankingConfig, artifact.settings, "ranking"),
        Quantiles(**load_arrays(artifact.path / "query_quantiles", ("knots", "levels"))),
        Quantiles(**load_arrays(artifact.path / "quantiles", ("knots", "levels"))),
        torch.Generator(),
        UNFILLED,
    )
    network.load_state_dict(load_file(artifact.path / "weights.safetensors"), assign=True)
    ranker = Ranker(network, network.config.precision)
    _refuse_other_predictions(ranker, artifact.path)
    return ranker


def _refuse_other_predictions(ranker: Ranker, path: Path) -> None:
    inputs, expected = (_opened(path / "probe", kind) for kind in (RankingInputs, Predictions))
    found = vars(ranker.predictions(RankingInputs(**inputs)))
    for name, seconds in expected.items():
        difference, borne = np.abs(found[name] - seconds).sum(), _SHARE_BORNE[ranker.precision] * np.abs(seconds).sum()
        if not difference <= borne:  # nor when it is no number
            raise ArtifactError(
                f"the ranker in {path} does not predict here what it did where it was trained: a {name} of "
                f"{found[name].mean():.4g} came, {seconds.mean():.4g} was expected, on average of {len(seconds)} "
                f"impressions; in {ranker.precision}, {_SHARE_BORNE[ranker.precision]:.2%} of difference are borne. "
                "Its files were changed, or this processor or PyTorch computes wrongly: restore it from a copy, or "
                "run train-ranking again, with [ranking] precision = 'float32' if that is the remedy."
            )


def _opened(folder: Path, kind: type) -> dict[str, Any]:
    """Copies of the arrays that a dataclass has; mapped ones cannot be shared with PyTorch."""
    names = tuple(field.name for field in dataclasses.fields(kind))
    return {name: np.array(array) for name, array in load_arrays(folder, names).items()}
