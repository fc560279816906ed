"""Cells and their codes: what is stored stands for the vectors, and every vector is stored once."""

import numpy as np
import pytest
import torch

from watchnext.retrieval.index.cells import Cells, build_cells
from watchnext.retrieval.index.lanes import LANES, LINE


def vectors_like(num: int, dim: int, sigma: float = 0.3, seed: int = 0) -> np.ndarray:
    """Directions around a few topics, lengths of a log-normal; row 0 is nobody."""
    random = np.random.default_rng(seed)
    topics = random.normal(size=(10, dim))
    vectors = topics[random.integers(0, 10, num)] + 0.7 * random.normal(size=(num, dim))
    vectors *= np.exp(sigma * random.normal(size=(num, 1))) / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[0] = 0.0
    return vectors.astype(np.float32)


def decoded(cells: Cells) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """The leading components of the vector that each code stands for, and how far apart these codes are."""
    dim, found = len(cells.step), {}
    for cell in range(len(cells.radius)):
        for number in range(cells.count[cell]):
            slot = int(cells.first_block[cell]) * LANES + number
            block, lane = divmod(slot, LANES)
            code = np.zeros(dim)
            for group in range(dim // 8):
                for byte in range(4):
                    both = int(cells.scanned[block * LANES * dim // 2 + group * LINE + lane * 4 + byte])
                    code[8 * group + byte], code[8 * group + 4 + byte] = both & 15, both >> 4
            unit = cells.radius[cell] * cells.step
            found[int(cells.video_row[slot])] = centre_of(cells, cell)[:dim] + unit * (code - 7.5), unit
    return found


def centre_of(cells: Cells, cell: int) -> np.ndarray:
    dim = cells.centre_dims
    block, lane = divmod(cell, LANES)
    lines = cells.centres[block * LANES * dim : (block + 1) * LANES * dim].reshape(dim // 4, LANES, 4)
    centre = np.zeros(len(cells.variance))
    centre[:dim] = lines[:, lane, :].reshape(-1).astype(float) - 128.0
    return centre * cells.centre_step


@pytest.mark.parametrize("dim", [8, 20, 160])
def test_every_vector_is_stored_once_and_its_code_stands_for_it(dim):
    vectors = vectors_like(700, dim)
    cells = build_cells(vectors, 32)
    found = decoded(cells)
    assert sorted(found) == list(range(1, 700))
    stored, unit = (np.array([found[row][part] for row in range(1, 700)]) for part in (0, 1))
    turned = np.pad(vectors[1:], ((0, 0), (0, -dim % 8))) @ cells.basis[:, : len(cells.step)]
    steps_off = np.abs(stored - turned) / unit
    assert (steps_off < 0.501).mean() > 0.98 and (steps_off < 0.25).mean() < 0.6  # the rest is cut


def test_cells_hold_vectors_of_like_length():
    vectors = vectors_like(3_000, 16, sigma=0.6)
    cells = build_cells(vectors, 160)
    norms = np.log(np.linalg.norm(vectors, axis=1)[1:])
    slots = np.repeat(np.arange(len(cells.count)), cells.count)
    places = np.concatenate(
        [first * LANES + np.arange(count) for first, count in zip(cells.first_block, cells.count, strict=False)]
    )
    within = [norms[cells.video_row[places[slots == cell]] - 1].std() for cell in np.flatnonzero(cells.count > 2)]
    assert np.mean(within) < 0.4 * norms.std()


def test_the_radius_is_the_mean_distance_from_the_centre():
    vectors = vectors_like(4_000, 16)
    cells = build_cells(vectors, 16)
    for cell in np.flatnonzero(cells.count > 200):
        slots = int(cells.first_block[cell]) * LANES + np.arange(cells.count[cell])
        difference = vectors[cells.video_row[slots]] @ cells.basis - centre_of(cells, cell)
        assert cells.radius[cell] == pytest.approx(np.sqrt((difference**2).sum(axis=1).mean()), rel=0.05)


def test_the_same_seed_gives_the_same_cells_with_any_number_of_threads():
    vectors, threads, found = vectors_like(6_000, 24), torch.get_num_threads(), []
    for count in (1, 2):
        torch.set_num_threads(count)
        found.append(build_cells(vectors, 48, seed=3))
    torch.set_num_threads(threads)
    for name in vars(found[0]):
        np.testing.assert_array_equal(getattr(found[0], name), getattr(found[1], name), err_msg=name)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((50, 8)),
        np.ones((50, 8)),
        np.eye(50, 8),
        np.concatenate([np.zeros((1, 8)), 1e6 * np.ones((1, 8)), np.full((48, 8), 1e-6)]),
    ],
    ids=["zeros", "equal", "few", "one outlier"],
)
def test_odd_vectors_are_stored_too(vectors):
    cells = build_cells(vectors.astype(np.float32), 16)
    assert sorted(cells.video_row[cells.video_row > 0].tolist()) == list(range(1, 50))
