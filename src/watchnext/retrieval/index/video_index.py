"""Finding the videos with the largest dot product: the protocol, and choosing an engine."""

import json
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from watchnext.config import IndexConfig
from watchnext.errors import ArtifactError
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.faiss_engine import FaissIndex
from watchnext.retrieval.index.requests import Lists
from watchnext.shapes import Array, Bool, Float, RowLists

_ENGINES: dict[str, type[ExactIndex] | type[FaissIndex]] = {"exact": ExactIndex, "faiss": FaissIndex}


@runtime_checkable
class VideoIndex(Protocol):
    """Think of it as a scan of all video vectors that may look only where the best ones are."""

    is_exact: bool

    def search(
        self,
        queries: Float[Array, "batch dim"],
        k: int,
        excluded: RowLists | None = None,
        allowed: Bool[Array, "videos"] | None = None,
    ) -> Lists:
        """Gives the rows and the exact dot products of the k best videos of each query, best first.

        `excluded` names rows to leave out, for each query; `allowed` says of every row whether any query may find it.
        Where fewer than k videos are left, the list is filled with row 0 and score -inf.

        Raises:
            RequestError: k is below 1, or a query has another length than the videos' vectors, or is not finite.
        """
        ...

    def save(self, folder: Path) -> None:
        """Writes the index into `folder`."""
        ...


def build_index(vectors: Float[Array, "videos dim"], config: IndexConfig) -> VideoIndex:
    """Builds the index that the settings ask for over the rows 1.. of `vectors`.

    Raises:
        ArtifactError: a vector is not finite.
    """
    if not np.isfinite(vectors).all():
        raise ArtifactError("a video vector is not finite: train the retrieval network again with a lower rate.")
    if engine_for(len(vectors), config) == "faiss":
        return FaissIndex.build(vectors, config.probes)
    return ExactIndex(vectors)


def engine_for(num_videos: int, config: IndexConfig) -> str:
    """Gives the engine's name: the configured one, or for 'auto' the exact scan up to the configured size."""
    if config.engine != "auto":
        return config.engine
    return "faiss" if num_videos >= config.approximate_from else "exact"


def save_index(index: VideoIndex, folder: Path) -> None:
    """Writes the index and its engine's name into `folder`."""
    folder.mkdir(parents=True)
    index.save(folder)
    name = next(name for name, engine in _ENGINES.items() if isinstance(index, engine))
    (folder / "engine.json").write_text(json.dumps({"engine": name}))


def open_index(folder: Path) -> VideoIndex:
    """Maps the index that `save_index` wrote.

    Raises:
        ArtifactError: it was written by an engine that this version does not have.
    """
    name = json.loads((folder / "engine.json").read_text())["engine"]
    if name not in _ENGINES:
        raise ArtifactError(f"{folder} was written by the engine {name!r}; known are {', '.join(_ENGINES)}.")
    return _ENGINES[name].open(folder)
