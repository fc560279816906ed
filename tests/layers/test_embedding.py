"""Embedding tables against dense ones, and the row-wise optimizer against a loop over all rows."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from watchnext.layers.embedding import EmbeddingTable, RowwiseAdagrad, embedding_dim_for, tables_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def table_of(num_rows=12, dim=4):
    return EmbeddingTable(num_rows, dim, seeded(), scale=1.0)


def dense_twin(table):
    return nn.Embedding.from_pretrained(table.weight.clone(), freeze=False)


def bags(*rows):
    length = max(map(len, rows))
    return torch.tensor([list(row) + [0] * (length - len(row)) for row in rows])


def test_row_zero_is_the_zero_vector():
    assert not table_of().weight[0].any()
    assert (table_of().weight[1:] != 0).all()


def test_the_initial_rows_have_the_given_scale():
    assert EmbeddingTable(2000, 16, seeded(), scale=0.3).weight[1:].std().item() == pytest.approx(0.3, rel=0.02)


def test_the_same_seed_gives_the_same_rows():
    assert torch.equal(table_of().weight, table_of().weight)


def test_dim_is_the_length_of_a_row():
    assert table_of(5, 7).dim == 7


@pytest.mark.parametrize("training", [True, False])
def test_a_lookup_gives_the_rows_in_any_shape(training):
    table = table_of().train(training)
    rows = torch.tensor([[3, 0, 3], [11, 1, 0]])
    assert_close(table(rows), table.weight[rows], rtol=0, atol=0)
    assert table(rows[0]).shape == (3, 4)


@pytest.mark.parametrize("training", [True, False])
def test_a_bag_is_the_mean_of_its_rows_without_padding(training):
    table = table_of().train(training)
    weight = table.weight
    expected = torch.stack([(weight[3] + weight[5]) / 2, weight[7], (2 * weight[2] + weight[1]) / 3, torch.zeros(4)])
    assert_close(table.mean(bags([3, 5], [0, 7], [2, 2, 1], [])), expected)


def test_a_longer_bag_of_padding_changes_nothing():
    table = table_of().eval()
    assert torch.equal(table.mean(bags([3, 5])), table.mean(bags([3, 0, 5, 0, 0])))


def loss_of(vectors):
    return (vectors * torch.linspace(-1, 2, vectors.numel()).reshape(vectors.shape)).square().sum()


def test_the_gradient_of_a_lookup_equals_that_of_a_dense_table():
    table, rows = table_of(), torch.tensor([3, 0, 3, 11])
    dense = dense_twin(table)
    loss_of(table(rows)).backward()
    loss_of(dense(rows)).backward()
    [(distinct, vectors)] = table.touched
    assert distinct.tolist() == [0, 3, 11]
    assert_close(vectors.grad, dense.weight.grad[distinct])


def test_the_gradient_of_a_mean_equals_that_of_a_dense_mean():
    table, rows = table_of(), bags([3, 5], [2, 2, 1], [])
    dense = dense_twin(table)
    loss_of(table.mean(rows)).backward()
    lengths = (rows > 0).sum(dim=1, keepdim=True).clamp(min=1)
    loss_of((dense(rows) * (rows > 0)[:, :, None]).sum(dim=1) / lengths).backward()
    [(distinct, vectors)] = table.touched
    assert_close(vectors.grad[distinct > 0], dense.weight.grad[distinct[distinct > 0]])


def test_lookups_are_remembered_only_while_learning():
    table = table_of()
    with torch.no_grad():
        table(torch.tensor([1]))
    table.eval()(torch.tensor([1]))
    table.mean(torch.tensor([[1]]))
    assert table.touched == []


def dense_adagrad(weight, squares, gradient, learning_rate):
    """The same step for each row in turn, from the gradient of the whole table."""
    weight, squares = weight.clone(), squares.clone()
    for row in range(1, len(weight)):
        if gradient[row].any():
            squares[row] += gradient[row].square().mean()
            weight[row] -= learning_rate * gradient[row] / (squares[row].sqrt() + 1e-8)
    return weight, squares


def test_several_steps_equal_a_dense_oracle_even_when_a_table_is_used_twice():
    """An impressed video and the last watched ones share a table (§4.1)."""
    table = table_of()
    optimizer = RowwiseAdagrad([table], learning_rate=0.1)
    weight, squares = table.weight.clone(), torch.zeros(12)
    for step in range(5):
        rows = torch.randint(0, 9, (6,), generator=seeded(step))
        history = torch.randint(0, 9, (6, 3), generator=seeded(100 + step))
        dense = nn.Embedding.from_pretrained(weight.clone(), freeze=False)
        lengths = (history > 0).sum(dim=1, keepdim=True).clamp(min=1)
        mean = (dense(history) * (history > 0)[:, :, None]).sum(dim=1) / lengths
        loss_of(torch.cat([dense(rows), mean], dim=1)).backward()
        weight, squares = dense_adagrad(weight, squares, dense.weight.grad, 0.1)

        loss_of(torch.cat([table(rows), table.mean(history)], dim=1)).backward()
        optimizer.step()
        assert_close(table.weight, weight)
        assert_close(table.squared_gradient, squares)


def test_the_first_step_of_a_row_is_the_learning_rate_over_its_root_mean_square():
    # gradient (3, 4): mean square 12.5; step 0.5 · (3, 4) / √12.5
    table = table_of(3, 2)
    before = table.weight[1].clone()
    (table(torch.tensor([1])) * torch.tensor([3.0, 4.0])).sum().backward()
    RowwiseAdagrad([table], learning_rate=0.5).step()
    assert_close(before - table.weight[1], 0.5 * torch.tensor([3.0, 4.0]) / math.sqrt(12.5))
    assert table.squared_gradient.tolist() == pytest.approx([0.0, 12.5, 0.0])


def test_rows_not_looked_up_stay_byte_identical():
    table = table_of()
    before = table.weight.clone()
    optimizer = RowwiseAdagrad([table], learning_rate=0.1)
    for _ in range(3):
        loss_of(table(torch.tensor([2, 5, 0]))).backward()
        optimizer.step()
    untouched = [row for row in range(12) if row not in (2, 5)]
    assert table.weight[untouched].numpy().tobytes() == before[untouched].numpy().tobytes()
    assert (table.weight[[2, 5]] != before[[2, 5]]).all()
    assert not table.squared_gradient[untouched].any()


def test_row_zero_stays_zero_when_it_is_looked_up():
    table = table_of()
    optimizer = RowwiseAdagrad([table], learning_rate=0.1)
    for _ in range(3):
        (loss_of(table(torch.tensor([0, 1])) + 1) + loss_of(table.mean(bags([0, 4], [])) + 1)).backward()
        optimizer.step()
    assert not table.weight[0].any()
    assert table.squared_gradient[0] == 0


def test_a_lookup_without_part_in_the_loss_changes_nothing():
    table = table_of()
    before = table.weight.clone()
    table(torch.tensor([3]))
    RowwiseAdagrad([table], learning_rate=0.1).step()
    assert torch.equal(table.weight, before)
    assert table.touched == []


def test_a_lookup_counts_for_one_step_only():
    table = table_of()
    optimizer = RowwiseAdagrad([table], learning_rate=0.1)
    loss_of(table(torch.tensor([3]))).backward()
    optimizer.step()
    after = table.weight.clone()
    optimizer.step()
    assert torch.equal(table.weight, after)


def test_a_saved_table_gives_the_same_vectors():
    table, other = table_of(), EmbeddingTable(12, 4, seeded(9))
    other.load_state_dict(table.state_dict())
    assert torch.equal(other.weight, table.weight)
    assert set(table.state_dict()) == {"weight"}


def test_all_tables_of_a_model_are_found():
    model = nn.ModuleDict({"one": table_of(), "more": nn.ModuleList([table_of(), nn.Linear(1, 1)])})
    assert tables_of(model) == [model["one"], model["more"][0]]


@pytest.mark.parametrize(("size", "dim"), [(1, 2), (2, 2), (4, 2), (8, 3), (1024, 10), (1_000_000, 20)])
def test_the_dimension_is_the_rounded_logarithm_and_at_least_two(size, dim):
    assert embedding_dim_for(size) == dim
