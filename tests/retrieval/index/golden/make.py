"""Writes indexes in the versions of today; `python make.py ENGINE-VERSION …`, once for each version."""

import watchnext  # noqa: F401  # isort: skip  # before PyTorch: watchnext.threads

import sys
from pathlib import Path

import numpy as np

from watchnext.config import IndexConfig
from watchnext.retrieval.index.engines import build_index, save_index
from watchnext.retrieval.index.exact import ExactIndex
from watchnext.retrieval.index.parts import ShardedIndex


def main(wanted: list[str]) -> None:
    """Writes them."""
    vectors = np.random.default_rng(3).normal(size=(201, 16)).astype(np.float32)
    vectors[0] = 0.0
    queries = np.random.default_rng(5).normal(size=(8, 16)).astype(np.float32)
    for name in wanted:
        engine = name.partition("-")[0]
        if engine == "shards":
            index = ShardedIndex.build(vectors, 2, lambda part: build_index(part, IndexConfig(engine="cells")))
        else:
            index = build_index(vectors, IndexConfig(engine=engine))
        folder = Path(__file__).parent / name
        save_index(index, folder)
        np.save(folder / "found.npy", ExactIndex(vectors).search(queries, 10)[0])


if __name__ == "__main__":
    main(sys.argv[1:])
