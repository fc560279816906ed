"""Bounds from rounded numbers: never below the product, and close to it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from watchnext.retrieval.index.rounded import UpperBounds

HALFWAY = 1.0 + 2.0**-8  # between two bfloat16, the lower of which is even and taken


def products_and_bounds(queries: np.ndarray, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bounds = UpperBounds(torch.from_numpy(queries))(torch.from_numpy(vectors))
    assert bounds.dtype == torch.bfloat16
    return queries.astype(np.float64) @ vectors.astype(np.float64).T, bounds.float().numpy()


@settings(max_examples=80)
@given(st.integers(0, 9_999), st.integers(1, 300), st.floats(-15.0, 15.0))
def test_no_product_is_above_its_bound(seed, dim, size):
    random = np.random.default_rng(seed)
    queries = (10.0**size * random.normal(size=(4, dim))).astype(np.float32)
    vectors = np.concatenate([random.normal(size=(40, dim)), queries / 10.0**size, np.zeros((1, dim))])
    products, bounds = products_and_bounds(queries, vectors.astype(np.float32))
    assert (products <= UpperBounds.at_most(bounds)).all()


@pytest.mark.parametrize(("query", "vector"), [(HALFWAY, 1.0), (1.0, HALFWAY)])
def test_rounding_that_always_goes_down_is_bounded(query, vector):
    """Every component loses the most that rounding can take: half the distance of neighbours."""
    queries, vectors = np.full((1, 64), query, dtype=np.float32), np.full((1, 64), vector, dtype=np.float32)
    products, bounds = products_and_bounds(queries, vectors)
    assert 64.0 < products[0, 0] <= bounds[0, 0]


@pytest.mark.parametrize("dim", [16, 256])
def test_bounds_are_near(dim):
    random = np.random.default_rng(0)
    queries, vectors = (random.normal(size=(size, dim)).astype(np.float32) for size in (20, 500))
    products, bounds = products_and_bounds(queries, vectors)
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    assert ((bounds - products) / lengths).mean() < 0.005
