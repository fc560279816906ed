"""Compiled row kernels against loops in NumPy, and against their twin in plain PyTorch."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from watchnext.layers.row_kernels import adagrad_in_torch, adagrad_on_rows, as_array, bag_means, rounding_noise

# Whole lines of 16 floats and of 32 halves, one float more, less than one line, odd.
DIMS = [64, 48, 33, 16, 7, 1]
RATE = 0.1


@pytest.fixture
def threads():
    """Sets the number of threads; the old one comes back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_of(num_rows, dim, dtype=torch.float32):
    """Random rows, row 0 not zero: it shows who reads it."""
    return torch.randn((num_rows, dim), generator=seeded(dim)).to(dtype)


def bytes_of(table):
    return table.contiguous().view(torch.uint8).numpy().tobytes()


def mean_by_loop(table, bags):
    means = np.zeros((len(bags), table.shape[1]))
    for place, bag in enumerate(bags.tolist()):
        rows = [table[row].double().numpy() for row in bag if row > 0]
        if rows:
            means[place] = sum(rows) / len(rows)
    return torch.from_numpy(means).float()


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_mean_of_a_bag_leaves_padding_out(dim, dtype):
    table = table_of(50, dim, dtype)
    bags = torch.randint(0, 50, (40, 11), generator=seeded())
    bags[torch.rand(bags.shape, generator=seeded(1)) < 0.4] = 0
    bags[7] = 0
    means = bag_means(table, bags)
    assert means.dtype == torch.float32
    assert_close(means, mean_by_loop(table, bags), rtol=1e-5, atol=1e-6)
    assert not means[7].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_two_threads_give_the_bytes_of_one(threads, dtype):
    table = table_of(50, 33, dtype)
    bags = torch.randint(0, 50, (5001, 3), generator=seeded())
    threads(1)
    one = bag_means(table, bags)
    threads(2)
    assert torch.equal(bag_means(table, bags), one)
    assert_close(one, mean_by_loop(table, bags), rtol=1e-5, atol=1e-6)


def test_bags_may_be_strided_or_have_no_places_or_be_none():
    table = table_of(9, 5)
    bags = torch.randint(0, 9, (6, 8), generator=seeded())
    assert_close(bag_means(table, bags[:, ::2]), mean_by_loop(table, bags[:, ::2]), rtol=1e-5, atol=1e-6)
    assert torch.equal(bag_means(table, bags[:, :0]), torch.zeros(6, 5))
    assert bag_means(table, bags[:0]).shape == (0, 5)


class Step:
    """One step's arguments: integer gradients, so that sums are exact in any order."""

    def __init__(self, dim, num_rows=60, occurrences=500, samples=40, dtype=torch.float32, seed=0):
        random = seeded(seed)
        self.table = table_of(num_rows, dim, dtype)
        self.table[0] = 0.0
        self.squares = torch.rand(num_rows, generator=random)
        self.rows = torch.randint(0, num_rows, (occurrences,), generator=random)
        # A popular row, and rows that nobody uses.
        self.rows[torch.rand(occurrences, generator=random) < 0.3] = 3
        self.rows[self.rows % 10 == 7] = 0
        self.sources = torch.randint(0, samples, (occurrences,), generator=random)
        self.gradients = torch.randint(-3, 4, (samples, dim), generator=random).float()
        self.noise = rounding_noise(5, 2, dim)

    @property
    def used(self):
        return sorted({row for row in self.rows.tolist() if row > 0})

    @property
    def unused(self):
        return sorted(set(range(len(self.table))) - set(self.used))

    def compiled(self):
        table, squares = self.table.clone(), self.squares.clone()
        adagrad_on_rows(table, squares, self.rows, self.sources, self.gradients, RATE, self.noise)
        return table, squares

    def twin(self):
        table, squares = self.table.clone(), self.squares.clone()
        ordered, order = torch.sort(self.rows, stable=True)
        adagrad_in_torch(table, squares, ordered, self.sources[order], self.gradients, RATE, self.noise)
        return table, squares

    def dense(self):
        """The gradient of every row by a loop over the uses, then the formula, in float64."""
        gradient = np.zeros(self.table.shape)
        for row, source in zip(self.rows.tolist(), self.sources.tolist(), strict=True):
            gradient[row] += self.gradients[source].double().numpy()
        gradient[0] = 0.0
        squares = self.squares.double().numpy() + np.square(gradient).mean(axis=1)
        table = self.table.double().numpy() - RATE * gradient / (np.sqrt(squares) + 1e-8)[:, None]
        return torch.from_numpy(table).float(), torch.from_numpy(squares).float()


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("make", [Step.compiled, Step.twin])
def test_a_step_equals_that_of_a_dense_loop(dim, make):
    step = Step(dim)
    table, squares = make(step)
    dense_table, dense_squares = step.dense()
    assert_close(table, dense_table, rtol=1e-5, atol=1e-6)
    assert_close(squares, dense_squares, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("make", [Step.compiled, Step.twin])
def test_a_bfloat16_row_lands_beside_the_exact_value(dim, make):
    step = Step(dim, dtype=torch.bfloat16)
    table, squares = make(step)
    dense_table, dense_squares = step.dense()
    # Eight bits: neighbours are less than 2^-7 of the value apart, and either of the two may be taken.
    assert_close(table.float(), dense_table, rtol=2**-7, atol=1e-6)
    assert not torch.equal(table[step.used], dense_table.bfloat16()[step.used])
    assert_close(squares, dense_squares, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_twin_gives_the_same(dim, dtype):
    step = Step(dim, dtype=dtype)
    (table, squares), (twin_table, twin_squares) = step.compiled(), step.twin()
    assert_close(squares, twin_squares, rtol=1e-6, atol=0)
    # One bit of the float32 before it is rounded: the same noise then rounds nearly every one the same way.
    assert (table != twin_table).float().mean() < (0.001 if dtype == torch.bfloat16 else 1.0)
    assert_close(table, twin_table, rtol=2**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [Step.compiled, Step.twin])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_that_nobody_used_and_row_zero_stay_byte_for_byte(dtype, make):
    step = Step(33, dtype=dtype)
    table, squares = make(step)
    assert 0 in step.unused and 7 in step.unused and 0 in step.rows
    assert bytes_of(table[step.unused]) == bytes_of(step.table[step.unused])
    assert bytes_of(squares[step.unused]) == bytes_of(step.squares[step.unused])
    assert (table[step.used] != step.table[step.used]).any(dim=1).all()


@pytest.mark.parametrize(("rows", "make"), [([], Step.compiled), ([0] * 3, Step.compiled), ([0] * 3, Step.twin)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_used_changes_nothing(dtype, rows, make):
    step = Step(8, dtype=dtype)
    step.rows, step.sources = torch.tensor(rows, dtype=torch.int64), torch.zeros(len(rows), dtype=torch.int64)
    table, squares = make(step)
    assert bytes_of(table) == bytes_of(step.table) and bytes_of(squares) == bytes_of(step.squares)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_rows", [4, 60, 5000])
def test_the_number_of_threads_changes_no_byte(threads, dtype, num_rows):
    """Also where one row has most of the uses."""
    step = Step(24, num_rows, occurrences=9000, dtype=dtype)
    step.gradients += torch.rand(step.gradients.shape, generator=seeded(1))  # sums now depend on their order
    threads(1)
    table, squares = step.compiled()
    threads(2)
    other_table, other_squares = step.compiled()
    assert bytes_of(other_table) == bytes_of(table) and bytes_of(other_squares) == bytes_of(squares)
    assert not torch.equal(table[step.used], step.table[step.used])
    dense_table, _ = step.dense()
    assert_close(table.float(), dense_table, rtol=2**-7 if dtype == torch.bfloat16 else 1e-4, atol=1e-5)


def test_half_precision_gradients_of_a_network_are_summed_in_float32():
    step = Step(16)
    # 300 uses of 1 and one of 0.5: bfloat16 would stop counting at 256.
    step.rows, step.sources = torch.full((301,), 5), torch.tensor([0] * 300 + [1])
    step.gradients = torch.ones(2, 16).bfloat16() * torch.tensor([[1.0], [0.5]]).bfloat16()
    for make in (Step.compiled, Step.twin):
        assert make(step)[1][5] == pytest.approx(step.squares[5].item() + 300.5**2, rel=1e-6)


NUM_ROWS, DIM = 8000, 8


def drifted(start, gradient, steps=200):
    """Rows of bfloat16 after many steps, each a hundredth of the distance between neighbours."""
    table = torch.full((NUM_ROWS, DIM), start, dtype=torch.bfloat16)
    squares = torch.full((NUM_ROWS,), 1e6)
    rows = torch.arange(NUM_ROWS)
    sources, gradients = torch.zeros(NUM_ROWS, dtype=torch.int64), torch.full((1, DIM), gradient)
    for step in range(steps):
        adagrad_on_rows(table, squares, rows, sources, gradients, RATE, rounding_noise(0, step, DIM))
    return table[1:].float()


@pytest.mark.parametrize("start", [1.5, -1.5])
@pytest.mark.parametrize("gradient", [1.0, -1.0])
def test_many_tiny_steps_move_bfloat16_rows_by_their_sum(start, gradient):
    # A step is 0.1 · 1 / √1,000,000 = 0.0001; neighbours of 1.5 are 1/128 = 0.0078 apart, so that rounding to the
    # nearest would lose every step. 200 of them are 0.02 (the accumulator hardly grows).
    assert torch.tensor(start - 1e-4).bfloat16() == start
    moved = drifted(start, gradient) - start
    # Each value's variance is at most 200 · 0.0001 · 0.0078 = 0.0125²; the 64,000 values share 8,000 bits of noise
    # a step or so: the mean's standard deviation is 0.0125 / √8000 = 0.00014, of which this allows four.
    assert moved.mean().item() == pytest.approx(-0.02 * gradient, abs=0.0006)
    assert 0.008 < moved.std() < 0.014


@pytest.mark.parametrize("make", [Step.compiled, Step.twin])
def test_rounding_follows_the_noise(make):
    step = Step(64, dtype=torch.bfloat16)
    table = make(step)[0]
    assert bytes_of(make(step)[0]) == bytes_of(table)
    step.noise = rounding_noise(5, 3, 64)
    assert bytes_of(make(step)[0]) != bytes_of(table)


@pytest.mark.parametrize("make", [Step.compiled, Step.twin])
def test_equal_rows_are_rounded_by_noise_of_their_own(make):
    step = Step(64, dtype=torch.bfloat16)
    step.table[:], step.squares[:], step.gradients[:] = 1.5, 1.0, 0.07
    step.rows, step.sources = torch.arange(60), torch.zeros(60, dtype=torch.int64)
    assert len(make(step)[0][1:].float().unique(dim=0)) == 59


@pytest.mark.parametrize("make", [Step.compiled, Step.twin])
def test_a_value_that_bfloat16_holds_exactly_stays_whatever_the_noise(make):
    step = Step(16, dtype=torch.bfloat16)
    step.gradients[:] = 0.0
    step.noise = np.full_like(step.noise, 2**16 - 1)
    assert bytes_of(make(step)[0]) == bytes_of(step.table)


def test_noise_is_the_same_for_the_same_seed_and_step_and_another_for_others():
    noise = rounding_noise(3, 4, 10)
    assert (rounding_noise(3, 4, 10) == noise).all()
    for seed, step in [(3, 5), (4, 4), (4, 3)]:
        assert (rounding_noise(seed, step, 10) == noise).mean() < 0.01
    # Uniform on 16 bits: the mean of 8,000 is 32,767.5 with a standard deviation of 211.
    assert noise.astype(float).mean() == pytest.approx(32_767.5, abs=900)


def test_an_array_is_the_tables_own_memory():
    floats, halves = table_of(3, 2), torch.tensor([[1.0, -2.0]]).bfloat16()
    as_array(floats)[1, 1] = 7.0
    assert floats[1, 1] == 7.0
    # The upper halves of 0x3F800000 and 0xC0000000.
    assert as_array(halves).tolist() == [[0x3F80, 0xC000]]
    as_array(halves)[0, 0] = 0x4000
    assert halves.tolist() == [[2.0, -2.0]]
