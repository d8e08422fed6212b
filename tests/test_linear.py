"""The adapted linear map: against float64, in every mode, whoever looks through it."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fourierft import FourierFTConfig, FourierFTLinear
from fourierft.bases.transform import BASES, make_transform
from fourierft.engine import gradient, linear
from fourierft.engine.linear import adapted_linear
from fourierft.engine.settings import DEFAULT, Engine, samples_gradient
from fourierft.engine.weight_cache import AdapterTerm, WeightCache
from fourierft.spectrum import Draw, sample_entries

SHAPES = [(48, 48), (63, 40), (20, 33)]
MODES = [Engine(m, g) for m in ("cache", "save", "recompute") for g in ("dense", "sampled")]
MODES.append(Engine("spectral"))


class Case:
    """One adapted map and what float64 says about it."""

    def __init__(self, shape, transposed=False, adapters=1, basis="fourier", tokens=(3, 7)):
        torch.manual_seed(0)
        out, in_ = shape
        self.transposed, self.cache = transposed, WeightCache()
        self.weight = torch.randn(in_, out) if transposed else torch.randn(out, in_)
        self.bias = torch.randn(out).requires_grad_()
        self.x = torch.randn(*tokens, in_).requires_grad_()
        self.dy = torch.randn(*tokens, out)
        self.terms = []
        for i in range(adapters):
            transform = make_transform(shape, sample_entries(shape, 30 + 50 * i, i), basis, i)
            transform = transform.transposed if transposed else transform
            self.terms.append(
                AdapterTerm(transform, 20.0 + i, torch.randn(30 + 50 * i).requires_grad_())
            )

    @property
    def leaves(self):
        return self.x, self.bias, *(term.coefficients for term in self.terms)

    def cast(self, dtype):
        """In half precision, its numbers' rounded values kept for the comparison."""
        for name in ("weight", "dy"):
            setattr(self, name, getattr(self, name).to(dtype))
        for name in ("x", "bias"):
            setattr(self, name, getattr(self, name).detach().to(dtype).requires_grad_())
        return self

    def call(self, engine=DEFAULT, weight=True):
        arguments = (self.weight, self.bias) if weight else (None, None)
        options = {"transposed": self.transposed, "engine": engine, "cache": self.cache}
        return adapted_linear(self.x, *arguments, self.terms, **options)

    def found(self, engine=DEFAULT, weight=True):
        y = self.call(engine, weight)
        leaves = self.leaves if weight else (self.x, *self.leaves[2:])
        return y.detach(), *torch.autograd.grad(y, leaves, self.dy)

    def expected(self, weight=True):
        x, bias, *cs = (leaf.detach().double().requires_grad_() for leaf in self.leaves)
        updates = [
            term.alpha * term.transform.update(c) for term, c in zip(self.terms, cs, strict=True)
        ]
        total = sum(updates) + (self.weight.double() if weight else 0)
        y = F.linear(x, total.T if self.transposed else total, bias if weight else None)
        leaves = (x, bias, *cs) if weight else (x, *cs)
        return y.detach(), *torch.autograd.grad(y, leaves, self.dy.double())


def assert_close(found, expected, tolerance=5e-7):
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one.double() - other).norm() <= tolerance * other.norm()


@pytest.mark.parametrize("engine", MODES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("adapters", [1, 2])
def test_against_float64(engine, shape, transposed, adapters):
    case = Case(shape, transposed, adapters)
    for _ in range(2):  # the second time from the cache
        assert_close(case.found(engine), case.expected())
    case.cache.clear()
    assert_close(case.found(engine, weight=False), case.expected(weight=False))


@pytest.mark.parametrize("engine", MODES)
@pytest.mark.parametrize("basis", BASES)
def test_every_basis(engine, basis):
    case = Case((40, 56), basis=basis, adapters=2)
    assert_close(case.found(engine), case.expected())


@pytest.mark.parametrize("tokens", [(), (1,), (0,), (700,), (2, 3, 5)])
@pytest.mark.parametrize("engine", MODES)
def test_any_number_of_tokens(tokens, engine):
    case = Case((24, 36), tokens=tokens)
    found, expected = case.found(engine), case.expected()
    assert found[0].shape == (*tokens, 24)
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("engine", MODES)
def test_half_precision(dtype, transposed, engine):
    case = Case((48, 40), transposed).cast(dtype)
    found = case.found(engine)
    assert [t.dtype for t in found] == [dtype, dtype, dtype, torch.float32]
    assert_close(found, case.expected(), 2 * torch.finfo(dtype).eps)
    # dL/dc comes from the same rounded input and output gradient, in float32.
    assert_close(found[3:], case.expected()[3:], 5e-7)


@pytest.mark.parametrize("tokens", [(), (5,), (3, 7), (2, 3, 5)])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("engine", [*MODES, Engine("cache", "auto", "exact")])
@pytest.mark.parametrize("weight", [True, False])
def test_output_may_be_written_to(tokens, transposed, engine, weight):
    """As ``nn.ReLU(inplace=True)`` does, and attention that scales its queries in place."""
    case, twin = (Case((24, 36), transposed, tokens=tokens) for _ in range(2))
    if engine.precision == "exact":
        case.cast(torch.bfloat16), twin.cast(torch.bfloat16)
    leaves = case.leaves if weight else (case.x, *case.leaves[2:])
    others = twin.leaves if weight else (twin.x, *twin.leaves[2:])
    in_place = case.call(engine, weight).mul_(2)
    in_place.narrow(-1, 0, 4).mul_(3)
    in_place.relu_()
    apart = twin.call(engine, weight) * 2
    apart = torch.relu(torch.cat([apart[..., :4] * 3, apart[..., 4:]], -1))
    assert torch.equal(in_place, apart)
    found = torch.autograd.grad(in_place, leaves, case.dy)
    expected = torch.autograd.grad(apart, others, twin.dy)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def gain(case, engine):
    """How much of the update's effect survives: 1 if all of it, 0 if it is rounded away."""
    frozen = F.linear(case.x, case.weight)
    update = sum(term.alpha * term.transform.update(term.coefficients) for term in case.terms)
    effect = F.linear(case.x.double(), update.double())
    difference = case.call(engine).double() - frozen.double()
    return ((difference * effect).sum() / effect.pow(2).sum()).item()


def as_on_accelerators(monkeypatch):
    """precision=exact without float32 products, which are slow there."""
    layout = linear.WeightLayout
    monkeypatch.setattr(linear, "WeightLayout", lambda *_, **__: layout(torch.bfloat16, True))


@pytest.mark.parametrize("interleaved", [False, True])
def test_exact_keeps_small_updates_that_rounding_swallows(interleaved, monkeypatch):
    case = Case((256, 256), tokens=(64,)).cast(torch.bfloat16)
    case.bias = None
    size = case.weight.float().norm()
    update = case.terms[0].alpha * case.terms[0].transform.update(case.terms[0].coefficients)
    with torch.no_grad():
        case.terms[0].coefficients.mul_(1e-4 * size / update.norm())
    with torch.no_grad():
        assert gain(case, Engine(precision="rounded")) < 0.3
        if interleaved:
            as_on_accelerators(monkeypatch)
        assert gain(case, Engine(precision="exact")) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("memory", ["cache", "save", "recompute"])
def test_exact_has_exact_gradients(transposed, interleaved, memory, monkeypatch):
    if interleaved:
        as_on_accelerators(monkeypatch)
    case = Case((48, 40), transposed, adapters=2).cast(torch.bfloat16)
    found = case.found(Engine(memory, precision="exact"))
    assert_close(found, case.expected(), 2 * torch.finfo(torch.bfloat16).eps)
    assert_close(found[3:], case.expected()[3:], 5e-7)


@pytest.mark.parametrize("engine", [*MODES, Engine(precision="exact")])
@pytest.mark.parametrize("basis", ["fourier", "orthogonal"])
def test_autocast(engine, basis):
    case = Case((64, 48), tokens=(32,), basis=basis)
    rounded = case.weight.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.linear(case.x, rounded)
        found = case.found(engine)  # its backward pass too
        assert found[0].dtype == expected.dtype == torch.bfloat16
    assert [t.dtype for t in found[1:]] == [torch.float32] * 3
    assert_close(found, case.expected(), 2 * torch.finfo(torch.bfloat16).eps)
    case.x, case.dy = (t.detach().bfloat16().float().requires_grad_() for t in (case.x, case.dy))
    assert_close(found[3:], case.expected()[3:], 5e-7)  # from the rounded input, in float32
    with torch.autocast("cpu", torch.bfloat16):
        small = case.terms[0].coefficients.detach() * 1e-3
        case.terms[0] = case.terms[0]._replace(coefficients=small)
        case.bias = None
        assert gain(case, Engine()) > 0.8  # W0 is float32: nothing is lost before the product


@pytest.mark.parametrize("engine", MODES)
@pytest.mark.parametrize("transposed", [False, True])
def test_second_derivatives(engine, transposed):
    case = Case((5, 6), transposed, tokens=(3,))
    case.weight = case.weight.double()
    c, bias, x = (
        leaf.detach().double().requires_grad_()
        for leaf in (case.terms[0].coefficients, case.bias, case.x)
    )

    def call(x, bias, c):
        terms = [case.terms[0]._replace(coefficients=c)]
        options = {"transposed": transposed, "engine": engine, "cache": case.cache}
        return adapted_linear(x, case.weight, bias, terms, **options)

    assert torch.autograd.gradcheck(call, (x, bias, c))
    assert torch.autograd.gradgradcheck(call, (x, bias, c))
    assert torch.autograd.gradcheck(call, (x, bias, c), check_forward_ad=True)


@pytest.mark.parametrize("engine", MODES)
def test_derivatives_of_a_layer_that_is_applied_twice(engine):
    """As in ALBERT: what reaches the coefficients by way of the input is counted once."""
    case = Case((6, 6), tokens=(3,))
    case.weight = case.weight.double()
    c, bias, x = (
        leaf.detach().double().requires_grad_()
        for leaf in (case.terms[0].coefficients, case.bias, case.x)
    )
    case.terms = [case.terms[0]._replace(coefficients=c)]
    options = {"engine": engine, "cache": case.cache}

    def loss():
        hidden = torch.tanh(adapted_linear(x, case.weight, bias, case.terms, **options))
        return adapted_linear(hidden, case.weight, bias, case.terms, **options).pow(2).sum()

    first = torch.autograd.grad(loss(), (c, bias, x))
    again = torch.autograd.grad(loss(), (c, bias, x), create_graph=True)
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("engine", MODES)
def test_many_output_gradients_at_once(engine):
    case = Case((12, 16), tokens=(5,))
    y = case.call(engine)
    many = torch.randn(3, *y.shape)
    leaves = case.leaves
    found = torch.autograd.grad(y, leaves, many, is_grads_batched=True, retain_graph=True)
    for i, dy in enumerate(many):
        expected = torch.autograd.grad(y, leaves, dy, retain_graph=True)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one[i], other, rtol=1e-4, atol=1e-5)


def test_autocast_for_one_of_the_layers_that_see_an_input():
    block, dense = Block(), Block("dense")
    x = torch.randn(7, 32)
    for model in (block, dense):
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model.query(x)
        (rounded.float() * model.value(x)).sum().backward()
    one, other = (m.value.fourierft_spectrum["default"].grad for m in (block, dense))
    assert (one - other).norm() < 1e-6 * other.norm()


def test_selective_checkpointing():
    """It keeps the results of some operations and replays the others: all must be the same."""
    from torch.utils import checkpoint

    products = [torch.ops.aten.mm.default, torch.ops.aten.addmm.default]
    for engine, basis in itertools.product(MODES, ("fourier", "dct")):
        plain, replayed = Case((24, 36), basis=basis), Case((24, 36), basis=basis)
        plain.bias = replayed.bias = None
        y = checkpoint.checkpoint(
            lambda x, case=replayed, engine=engine: adapted_linear(
                x, case.weight, None, case.terms, engine=engine, cache=case.cache
            ),
            replayed.x,
            use_reentrant=False,
            context_fn=lambda: checkpoint.create_selective_checkpoint_contexts(products),
        )
        y.backward(replayed.dy)
        z = adapted_linear(plain.x, plain.weight, None, plain.terms, engine=engine)
        z.backward(plain.dy)
        one, other = (case.terms[0].coefficients.grad for case in (plain, replayed))
        torch.testing.assert_close(one, other)
        torch.testing.assert_close(plain.x.grad, replayed.x.grad)


@pytest.mark.filterwarnings("ignore")
def test_traced_code_follows_the_coefficients():
    block, x = Block(), torch.randn(4, 32)
    with torch.no_grad():
        block(x)  # the weight is kept now
        traced = torch.jit.trace(block, x, check_trace=False)
        for layer in (block.query, block.value):
            layer.fourierft_spectrum["default"].data.mul_(2)
        torch.testing.assert_close(traced(x), block(x), rtol=1e-4, atol=1e-5)


def test_function_transforms():
    case = Case((12, 16), tokens=(5,))

    def loss(c, x):
        terms = [case.terms[0]._replace(coefficients=c)]
        return adapted_linear(x, case.weight, None, terms, cache=case.cache).pow(2).sum()

    c, x = case.terms[0].coefficients.detach(), case.x.detach()
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(c, x)
    many = torch.func.vmap(torch.func.grad(loss), in_dims=(0, None))(torch.stack([c, 2 * c]), x)
    expected = c.clone().requires_grad_()
    loss(expected, x).backward()
    torch.testing.assert_close(each.sum(0), expected.grad)
    torch.testing.assert_close(many[0], expected.grad)
    _, tangent = torch.func.jvp(lambda c: loss(c, x), (c,), (c,))
    torch.testing.assert_close(tangent, (expected.grad * c).sum())


def test_base_weight_that_is_trained_too():
    case = Case((12, 16))
    case.weight.requires_grad_()
    case.call().backward(case.dy)
    flat = case.dy.flatten(0, 1).T @ case.x.detach().flatten(0, 1)
    torch.testing.assert_close(case.weight.grad, flat)


def test_gradients_that_nobody_needs_are_not_computed(monkeypatch):
    case = Case((12, 16))
    case.x = case.x.detach()
    called = []
    monkeypatch.setattr(linear, "_to_columns", lambda *a: called.append(a))
    case.call().sum().backward()  # the first layer of a model
    assert not called and case.terms[0].coefficients.grad is not None
    frozen = Case((12, 16))
    frozen.terms[0].coefficients.requires_grad_(False)
    y = frozen.call()
    assert y.grad_fn.saved_tensors[0] is None  # the input need not be kept
    monkeypatch.undo()
    y.backward(frozen.dy)
    assert frozen.x.grad is not None


def saved_bytes(call):
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return sum(storages.values())


def test_what_is_saved_for_the_backward_pass():
    case = Case((64, 48), tokens=(100,))
    constant = case.weight.nbytes
    recompute = saved_bytes(lambda: case.call(Engine("recompute")))
    assert recompute == case.x.nbytes + constant
    cache = saved_bytes(lambda: case.call(Engine("cache")))
    assert cache == recompute + case.weight.nbytes
    save = saved_bytes(lambda: case.call(Engine("save")))
    assert save == cache and case.cache.nbytes  # of the cached call; none of its own


def test_full_size_weight_is_kept_only_for_a_gradient_of_the_input():
    """Not in the first layer of a model."""
    case = Case((64, 48), tokens=(100,))
    case.x = case.x.detach()
    for memory in ("save", "recompute"):
        constant = case.weight.nbytes
        assert saved_bytes(lambda memory=memory: case.call(Engine(memory))) == (
            case.x.nbytes + constant
        )
    assert case.call(Engine("recompute")).grad_fn.values is None


class Block(nn.Module):
    """Query and value of one input, as in attention."""

    def __init__(self, gradient="sampled"):
        super().__init__()
        torch.manual_seed(0)
        config = FourierFTConfig(n_frequency=50, gradient=gradient)
        draw = Draw(50, config.random_loc_seed)
        self.query, self.value = (
            FourierFTLinear(nn.Linear(32, 32).requires_grad_(False), "default", config, (draw,))
            for _ in range(2)
        )

    def forward(self, x):
        return self.query(x) * self.value(x)


@pytest.fixture
def counted(monkeypatch):
    """Sizes of the signals that were analysed."""
    seen = []
    original = torch.fft.rfft

    def rfft(signal, *args, **kwargs):
        if not args and not kwargs and signal.dim() == 2:
            seen.append(tuple(signal.shape))
        return original(signal, *args, **kwargs)

    monkeypatch.setattr(torch.fft, "rfft", rfft)
    return seen


def test_layers_share_the_spectrum_of_their_input(counted):
    block, dense = Block(), Block("dense")
    x = torch.randn(7, 32)
    for _ in range(3):
        counted.clear()
        block.zero_grad(), dense.zero_grad()
        block(x).sum().backward()
        assert counted.count((7, 32)) == 3  # of one input and two output gradients
        dense(x).sum().backward()
        for one, other in zip(block.parameters(), dense.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_spectra_do_not_outlive_a_change_of_the_input():
    """A batch in a fixed buffer, written through ``.data``: no version tells."""
    block, dense, x = Block(), Block("dense"), torch.randn(7, 32)
    block.query(x)  # a forward pass whose backward never comes
    for _ in range(3):
        x.data.copy_(torch.randn(7, 32))
        for model in (block, dense):
            model.zero_grad()
            model(x).sum().backward()
        for one, other in zip(block.parameters(), dense.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


def test_spectra_are_let_go():
    block, x = Block(), torch.randn(7, 32)
    loss = block(x).sum()
    spectra = gradient._latest[2]()
    assert spectra.layers == 2
    loss.backward(retain_graph=True)
    assert spectra.layers == 0 and not spectra.kept
    expected = [p.grad.clone() for p in block.parameters() if p.requires_grad]
    loss.backward()
    found = [p.grad for p in block.parameters() if p.requires_grad]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, 2 * other)
    del x, loss, spectra
    assert gradient._latest[0]() is None and gradient._latest[2]() is None
    x = torch.randn(7, 32)
    query, _ = block.query(x), block.value(x).detach()
    query.sum().backward()  # the other backward pass never comes
    del query, _
    assert gradient._latest[2]() is None


def test_the_cost_rule_chooses(monkeypatch):
    transform = Case((48, 48), tokens=(4,)).terms[0].transform
    for prefers, device, engine, expected in [
        (True, "cpu", Engine(), True),
        (False, "cpu", Engine(), False),
        (True, "cuda", Engine(), False),
        (True, "cpu", Engine(gradient="dense"), False),
        (False, "cuda", Engine(gradient="sampled"), True),
    ]:
        monkeypatch.setattr(type(transform), "prefers_sampling", lambda *_: prefers)  # noqa: B023
        assert samples_gradient(engine, device, transform, 4) is expected


def test_workspace_does_not_grow_with_the_tokens(counted):
    case = Case((24, 36), tokens=(3000,))
    case.found(Engine(gradient="sampled"))
    assert max(rows for rows, _ in counted) <= 256


@pytest.mark.parametrize(("use_reentrant", "memory"), itertools.product([True, False], MODES))
def test_gradient_checkpointing(use_reentrant, memory):
    plain, checkpointed = Case((24, 36)), Case((24, 36))
    expected = plain.found(memory)
    y = torch.utils.checkpoint.checkpoint(
        lambda x: (
            checkpointed.terms
            and adapted_linear(
                x,
                checkpointed.weight,
                checkpointed.bias,
                checkpointed.terms,
                engine=memory,
                cache=checkpointed.cache,
            )
        ),
        checkpointed.x,
        use_reentrant=use_reentrant,
    )
    y.backward(checkpointed.dy)
    for leaf, other in zip(checkpointed.leaves, expected[1:], strict=True):
        assert torch.equal(leaf.grad, other)
