"""Choosing an engine, and indexes on disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from watchnext.config import IndexConfig
from watchnext.errors import ArtifactError
from watchnext.retrieval.index.cell_index import CellIndex
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.faiss_engine import FaissIndex
from watchnext.retrieval.index.lanes import has_byte_products
from watchnext.retrieval.index.parts import Part, ShardedIndex
from watchnext.retrieval.index.protocol import BuiltIndex
from watchnext.retrieval.index.scann_engine import ScannIndex
from watchnext.shapes import Array, Float

_APPROXIMATE: dict[str, type[CellIndex] | type[FaissIndex] | type[ScannIndex]] = {
    "cells": CellIndex,
    "faiss": FaissIndex,
    "scann": ScannIndex,
}
_ENGINES = {"exact": ExactIndex, **_APPROXIMATE}
_SHARDS = "shards"
# Of each one's files; tests/retrieval/index/golden keeps one index of each version that is read.
_VERSIONS = {"exact": 1, "cells": 3, "faiss": 1, "scann": 1, _SHARDS: 1}


def build_index(vectors: Float[Array, "videos dim"], config: IndexConfig) -> BuiltIndex:
    """Builds the index that the settings ask for over the rows 1.. of `vectors`.

    Raises:
        ArtifactError: a vector is not finite.
        ConfigurationError: the engine is an extra that is not installed.
    """
    if not np.isfinite(vectors).all():
        raise ArtifactError("a video vector is not finite: train the retrieval network again with a lower rate.")
    engine = engine_for(len(vectors), config) if len(vectors) > 1 else "exact"  # of no video nothing can be learnt
    return _APPROXIMATE[engine].build(vectors) if engine in _APPROXIMATE else ExactIndex(vectors)


def engine_for(num_videos: int, config: IndexConfig) -> str:
    """Gives the engine's name: the configured one, or for 'auto' the exact scan up to the configured size.

    Above, it is the cells; Faiss on processors without byte products, where cells are scanned by plain loops.
    """
    if config.engine != "auto":
        return config.engine
    if num_videos < config.approximate_from:
        return "exact"
    return "cells" if has_byte_products() else "faiss"


def engine_of(index: BuiltIndex) -> str:
    """Gives the name of the engine that built it."""
    return next((name for name, engine in _ENGINES.items() if isinstance(index, engine)), _SHARDS)


def save_index(index: BuiltIndex, folder: Path) -> None:
    """Writes the index and its engine's name into `folder`."""
    folder.mkdir(parents=True)
    if isinstance(index, ShardedIndex):
        for number, part in enumerate(index.parts):
            save_index(part.index, folder / str(number))
            np.save(folder / f"{number}-rows.npy", part.rows)
        told: dict[str, Any] = {"engine": _SHARDS, "shards": len(index.parts)}
    else:
        name = engine_of(index)
        _ENGINES[name].save(index, folder)  # type: ignore[arg-type]  # it is one of that engine
        told = {"engine": name}
    (folder / "engine.json").write_text(json.dumps({"version": _VERSIONS[told["engine"]], **told}))


def open_index(folder: Path) -> BuiltIndex:
    """Maps the index that `save_index` wrote.

    Raises:
        ArtifactError: it was written in another version, or by an engine that this version does not have, or that is an
            extra which is not installed.
    """
    told = json.loads((folder / "engine.json").read_text())
    name, version = told["engine"], told.get("version")
    if name not in _VERSIONS:
        raise ArtifactError(f"{folder} was written by the engine {name!r}; known are {', '.join(_ENGINES)}.")
    if version != _VERSIONS[name]:
        raise ArtifactError(f"{folder} has version {version}, {_VERSIONS[name]} is read: run watchnext index again.")
    if name == _SHARDS:
        shards = range(told["shards"])
        return ShardedIndex([Part(open_index(folder / f"{n}"), np.load(folder / f"{n}-rows.npy")) for n in shards])
    return _ENGINES[name].open(folder)
