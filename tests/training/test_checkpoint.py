import pytest
import torch

from watchnext.training import checkpoint as module
from watchnext.training.checkpoint import Checkpoint, Position


@pytest.fixture
def parts(tiny_run, tmp_path):
    """Gives a function from a seed to model, Adam and generator that have made a few steps."""

    def made(seed, steps=2, dtype=torch.float32):
        run = tiny_run(tmp_path / "unused", seed=seed, dtype=dtype)
        optimizer = torch.optim.Adam(run.model.parameters(), lr=0.01)
        run.model.table.squared_gradient.fill_(float(seed))
        for rows in list(run.batches(0, 0))[:steps]:
            run.loss(rows).backward()
            optimizer.step()
        return run.model, optimizer, run.generator

    return made


POSITION = Position(2, 5, [0.1, 0.2], [3.0, 1 / 3], 0.1 + 0.2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_finds_its_whole_state_again(parts, tmp_path, dtype):
    model, optimizer, generator = parts(1, dtype=dtype)
    Checkpoint(tmp_path, "this").save(POSITION, model, optimizer, generator)
    other_model, other_optimizer, other_generator = parts(2, steps=0, dtype=dtype)
    assert Checkpoint(tmp_path, "this").restore(other_model, other_optimizer, other_generator) == POSITION
    assert other_model.table.weight.dtype == dtype
    for name, tensor in model.state_dict().items():
        assert torch.equal(other_model.state_dict()[name], tensor), name
    assert torch.equal(other_model.table.squared_gradient, model.table.squared_gradient)
    assert torch.equal(other_generator.get_state(), generator.get_state())
    state, other_state = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert state.keys() == other_state.keys() and len(state) == 4
    for place, values in state.items():
        assert values.keys() == other_state[place].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in values.items():
            assert torch.equal(other_state[place][name], value)


def test_nothing_saved_gives_nothing(parts, tmp_path):
    assert Checkpoint(tmp_path / "absent", "this").restore(*parts(1)) is None


def test_another_purpose_gives_nothing_and_changes_nothing(parts, tmp_path):
    Checkpoint(tmp_path, "that").save(POSITION, *parts(1))
    model, optimizer, generator = parts(2)
    before, state = model.out.weight.clone(), generator.get_state()
    assert Checkpoint(tmp_path, "this").restore(model, optimizer, generator) is None
    assert torch.equal(model.out.weight, before) and torch.equal(generator.get_state(), state)


def test_a_kill_while_writing_leaves_the_state_before(parts, tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, "this")
    checkpoint.save(POSITION, *parts(1))
    whole = (tmp_path / "state.safetensors").read_bytes()

    def half(tensors, file, metadata=None):
        file.write_bytes(whole[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "save_file", half)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(Position(3), *parts(2))
    assert checkpoint.restore(*parts(3)) == POSITION


def test_the_best_weights_come_back(parts, tmp_path):
    checkpoint, model = Checkpoint(tmp_path, "this"), parts(1)[0]
    best = model.out.weight.clone()
    checkpoint.save_best(model)
    with torch.no_grad():
        model.out.weight.zero_()
    checkpoint.restore_best(model)
    assert torch.equal(model.out.weight, best)
