"""Weights that are kept until an optimizer steps: right, or loud about it, and nothing waits."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from test_forward_pass import assert_true, batch, build, groups, layers  # noqa: F401
from test_weight_cache import CHANGES, OPTIMIZERS
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu import correctness
from benchmarks.gpu.sections import Plan
from fourierft import configure, forward_pass, hold_weights
from fourierft.engine import kept_weights
from fourierft.engine.kept_weights import KeptWeights, ValueComparison, count_steps, raise_if_stale

# Of which PyTorch's version counters show nothing.
UNSEEN = {
    *("write_data", "write_one_number_through_data", "write_as_numpy", "average"),
    *("base_weight_through_data", "base_row_through_data", "base_column_through_data"),
}
STALE = "values of 3 layers of .* were changed between two forward passes"


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    try:
        raise_if_stale()
    finally:
        kept_weights._compared.clear()


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def backward(model, seed=0):
    loss = model(batch(seed)).pow(2).mean()
    loss.backward()
    return loss.detach()


def step(model, passes=1, make=OPTIMIZERS["fused"]):
    """One optimizer step; PyTorch's own are known after it."""
    optimizer = make(trained(model))
    for seed in range(passes):
        backward(model, seed)
    optimizer.step()
    optimizer.zero_grad()
    return optimizer


@pytest.fixture
def model():
    net = build("kept")
    net.optimizer = [step(net)]  # a list, which no state dict looks into
    return net


@pytest.fixture
def late(monkeypatch):
    """Comparisons whose results never arrive by themselves, as on a busy accelerator."""
    monkeypatch.setattr(ValueComparison, "has_arrived", lambda self: False)


def write(model):
    layers(model)[0].fourierft_spectrum["default"].data.mul_(1.1)


def use_stale(model):
    backward(model)
    write(model)
    backward(model)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_is_that_of_batched_weights_bit_for_bit(name, groups):  # noqa: F811
    losses, built = [], []
    for memory in ("batched", "kept"):
        groups.clear()
        net = build(memory)
        optimizer, found = OPTIMIZERS[name](trained(net)), []
        for turn in range(6):
            found += [backward(net, 3 * turn + micro) for micro in range(3)]
            optimizer.step()
            optimizer.zero_grad()
        losses.append(torch.stack(found))
        built.append(len(groups))
    assert torch.equal(*losses) and losses[0][-1] != losses[0][0]
    # Two groups, six steps of three passes; before the first step nobody knows the optimizer.
    assert built == [2 * 6 * 3, 2 * (3 + 5)]


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_heeded_or_raise(change, model):
    backward(model)
    change(model)
    backward(model)
    if change.__name__ in UNSEEN:
        with pytest.raises(RuntimeError, match=STALE):
            raise_if_stale()
    raise_if_stale()
    assert_true(model)
    assert_true(model)  # again, with what was kept meanwhile


def test_nothing_waits_and_nothing_is_built_again(model, late):
    class Forbidding(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            assert name not in ("equal", "_local_scalar_dense", "is_nonzero", "index_add_"), name
            return func(*args, **(kwargs or {}))

    for _ in range(3):
        backward(model)
        with Forbidding():
            backward(model)
        model.optimizer[0].step()
    with pytest.raises(AssertionError, match="index_add_"), Forbidding():
        backward(model)
    raise_if_stale()


def test_a_late_result_is_read_one_step_later(model, late):
    use_stale(model)
    model.optimizer[0].step()
    backward(model)
    backward(model)
    with pytest.raises(RuntimeError, match=STALE):
        model.optimizer[0].step()
    raise_if_stale()


def test_what_has_arrived_is_read_by_the_next_pass_or_step(model):
    use_stale(model)
    with pytest.raises(RuntimeError, match=STALE):
        backward(model)
    backward(model)
    use_stale(model)
    with pytest.raises(RuntimeError, match="memory=batched"):
        model.optimizer[0].step()
    assert_true(model)


READERS = {
    "evaluation": lambda model: torch.no_grad()(model)(batch()),
    "saving": lambda model: model.state_dict(),
    "merging": lambda model: model.merge_adapter(),
    "holding": lambda model: hold_weights(model).__enter__(),
}


@pytest.mark.parametrize("name", READERS)
def test_nothing_is_done_with_what_stale_weights_made(name, model, late):
    use_stale(model)
    with pytest.raises(RuntimeError, match=STALE):
        READERS[name](model)


def test_values_that_are_back_in_time_are_no_change(model):
    """As averaged coefficients that only an evaluation uses; and NaN is one value."""
    for value in (1.0, float("nan")):
        spectrum = layers(model)[0].fourierft_spectrum["default"].data
        spectrum[0] = value
        configure(model)
        backward(model)
        kept = spectrum.clone()
        write(model)
        with torch.no_grad():
            changed = model(batch())
        spectrum.copy_(kept)
        backward(model)
        raise_if_stale()
        assert not torch.equal(model(batch()), changed)


def test_steps_that_a_scaler_leaves_out(model, groups):  # noqa: F811
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = step(model, make=OPTIMIZERS["plain"])
    for factor, again in ((1.0, [3, 3]), (float("inf"), [])):
        groups.clear()
        before = count_steps()
        configure(model)
        scaler.scale(model(batch()).sum() * factor).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        backward(model)
        assert groups == [3, 3, *again][-4:] and (count_steps() > before) is bool(again)
        assert_true(model)


class Descent:
    """An optimizer that derives from nothing, and leaves no trace."""

    def __init__(self, parameters):
        self.parameters = parameters

    def step(self):
        for p in self.parameters:
            p.data.sub_(p.grad.data, alpha=0.05)
            p.grad = None


def test_optimizers_that_report_nothing_keep_nothing(groups):  # noqa: F811
    model, alone = build("kept"), build("recompute")
    found = []
    for net in (model, alone):
        optimizer = Descent(trained(net))
        for turn in range(4):
            found.append(torch.stack([backward(net, 2 * turn), backward(net, 2 * turn + 1)]))
            optimizer.step()
    assert len(groups) == 2 * 4 * 2 and not kept_weights._compared
    for one, other in zip(found[:4], found[4:], strict=True):
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-6)


def test_frozen_coefficients_are_not_kept(model, groups):  # noqa: F811
    for layer in layers(model):
        layer.fourierft_spectrum.requires_grad_(False)
    groups.clear()
    for _ in range(2):
        backward(model)
        write(model)
    assert groups == [3, 3] * 2


def test_several_models_and_copies(model):
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), build("kept")]
    assert all(layer._cache.kept is None for net in others for layer in layers(net))
    for net in (model, *others):
        step(net, passes=3)
        backward(net)
    for net in (model, *others):
        backward(net)
        assert_true(net)


def test_settings_and_devices_drop_what_is_kept(model):
    for change in (configure, lambda net: net.double().float(), lambda net: write_and_tell(net)):
        backward(model)
        assert all(layer._cache.kept for layer in layers(model))
        change(model)
        assert not all(layer._cache.kept for layer in layers(model))
        assert_true(model)


def write_and_tell(model):
    write(model)
    configure(model)


def test_auto_keeps_weights_once_a_step_had_two_passes(monkeypatch, groups):  # noqa: F811
    """Where it would take `batched`; on one pass a step nothing is kept."""
    for module in ("layer", "engine.linear"):
        monkeypatch.setattr(f"fourierft.{module}.choose_memory", lambda *_: "batched")
    monkeypatch.setattr(forward_pass, "prefers_group", lambda *_: True)
    model = build("auto", gradient="dense")
    optimizer = OPTIMIZERS["sgd"](trained(model))
    for passes, built in ((1, [3, 3]), (1, [3, 3]), (3, [3, 3] * 2), (3, [3, 3])):
        groups.clear()
        for _ in range(passes):
            backward(model)
        assert groups == built
        optimizer.step()
    assert_true(model)


def test_memory_is_given_back_by_a_step(model):
    backward(model)
    kept = [layer._cache.kept for layer in layers(model)]
    assert [len(one.effective) for one in kept] == [3] * 6
    model.optimizer[0].step()
    assert not any(one.effective for one in kept)


def test_nothing_is_kept_for_a_graph_that_is_replayed(model, groups, monkeypatch):  # noqa: F811
    backward(model)
    groups.clear()
    monkeypatch.setattr(kept_weights, "is_capturing", lambda: True)
    backward(model)
    assert groups == [3, 3]


def test_a_layer_alone_is_kept_too(groups):  # noqa: F811
    model = build("kept", target_modules=["blocks.1.first"])
    optimizer = step(model)
    groups.clear()
    for _ in range(3):
        backward(model)
    assert groups == [1]
    assert_true(model)
    del optimizer  # nobody would report a step now
    groups.clear()
    backward(model)
    assert groups == [1]


def test_a_deleted_model_leaves_no_weights():
    model = build("kept")
    optimizer = step(model)
    for _ in range(2):
        backward(model)
    weight = weakref.ref(layers(model)[0]._cache.kept.effective[0])
    assert weight() is not None
    del model, optimizer
    gc.collect()
    assert kept_weights._compared and weight() is None


def test_two_threads_read_a_comparison(model, monkeypatch):
    for _ in range(2):
        backward(model)
    is_stale, calls = ValueComparison.is_stale, []

    def read_twice(self):
        calls.append(self)
        if len(calls) == 1:  # as another thread at this moment
            raise_if_stale()
        return is_stale(self)

    for comparison in kept_weights._compared:
        comparison.step -= 2
    monkeypatch.setattr(ValueComparison, "is_stale", read_twice)
    raise_if_stale()
    assert len(calls) > 2 and not kept_weights._compared


def test_another_threads_optimizer_steps_as_weights_are_used_again(model, monkeypatch):
    expected, fits = backward(model), KeptWeights.fits

    def step_after(self, *args):
        found = fits(self, *args)
        kept_weights._end_step(model.optimizer[0])
        return found

    monkeypatch.setattr(KeptWeights, "fits", step_after)
    assert backward(model) == expected


def test_a_thread_keeps_weights_as_another_steps(model, monkeypatch):
    added = []

    class Kept:
        def __setattr__(self, *_):
            added.append(Kept())
            kept_weights._alive.add(added[-1])

    first = Kept()
    monkeypatch.setattr(kept_weights, "_alive", weakref.WeakSet([first]))
    kept_weights._end_step(model.optimizer[0])
    assert len(added) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu(tmp_path):
    plan = Plan("cuda", tiny=True, seconds=0.0, out=tmp_path, data=None, weights=None, jobs=1)
    assert correctness.check_keeping(plan) < 3e-6
