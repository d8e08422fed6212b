"""Gradient of the coefficients on accelerators, as far as it shows without one."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fourierft.bases.transform import make_transform
from fourierft.engine import gradient
from fourierft.engine.gradient import Signal, Spectra, coefficient_gradients, tokens_at_once
from fourierft.engine.settings import Engine, choose_memory, group_size, prefers_group
from fourierft.spectrum import sample_entries

HALF = [torch.float16, torch.bfloat16]


class Products(TorchDispatchMode):
    """Records types of the results of matrix products."""

    def __init__(self):
        super().__init__()
        self.types = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.__name__.split(".")[0] in ("mm", "addmm", "addmm_"):
            self.types.append(result.dtype)
        return result


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("widens", [True, False])
@pytest.mark.parametrize("differentiable", [True, False])
def test_the_dense_gradient_is_summed_in_float32(dtype, widens, differentiable, monkeypatch):
    monkeypatch.setattr(gradient, "_MM_WIDENS", widens)
    with FakeTensorMode(), torch.set_grad_enabled(differentiable), Products() as products:
        rows, columns = (torch.empty(9, d, dtype=dtype, device="cuda") for d in (6, 4))
        assert gradient.weight_gradient(rows, columns).dtype == torch.float32
    assert products.types and set(products.types) == {torch.float32}


def half_precision_errors(dtype, device):
    """Relative errors of the dense gradient at a loss scale of 65536."""
    torch.manual_seed(0)
    transform = make_transform((32, 48), sample_entries((32, 48), 60, 0, device=device))
    # Single gradients fit into float16, their sums over tokens do not.
    x, dy = torch.rand(300, 48) + 1, 65536 * (torch.rand(300, 32) + 0.5) * 1e-2
    x, dy = x.to(device, dtype), dy.to(device, dtype)
    expected = transform.gradient(dy.double().t() @ x.double())
    with torch.no_grad():
        (found,) = coefficient_gradients(
            Signal(dy, Spectra()), Signal(x, Spectra()), [transform], [False]
        )
    return (found - expected).norm() / expected.norm()


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision(dtype):
    assert half_precision_errors(dtype, "cpu") < 1e-6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_on_a_gpu(dtype):
    assert half_precision_errors(dtype, "cuda") < 1e-6


def test_accelerators_take_many_tokens_at_once_and_few_lengths():
    assert tokens_at_once((768, 768), "cpu") == tokens_at_once((10**9, 1), "cuda") == 256
    assert tokens_at_once((4096, 4096), "cuda") == 8192
    lengths = set()
    for tokens in range(1, 9000, 97):
        signal = torch.empty(tokens, 64, device="meta")
        for first in range(0, tokens, 2048):
            Spectra().get_analysis(
                signal, slice(first, first + 2048), "kind", lambda x: lengths.add(len(x))
            )
    assert lengths == set(range(256, 2049, 256))


def test_padding_adds_nothing():
    torch.manual_seed(0)
    transform = make_transform((32, 48), sample_entries((32, 48), 60, 0))
    x, dy = torch.randn(300, 48), torch.randn(300, 32)
    spectra = [torch.nn.functional.pad(t, (0, 0, 0, 212)) for t in (dy, x)]
    found = transform.sampled(
        transform.analyse_rows(spectra[0]), transform.analyse_columns(spectra[1])
    )
    expected = transform.gradient(dy.double().t() @ x.double())
    assert (found - expected).norm() < 1e-6 * expected.norm()


def test_memory_on_each_device():
    weight = torch.empty(768, 768)
    assert choose_memory(Engine(), "cpu", weight) == "cache"
    assert choose_memory(Engine(), "cuda", weight) == "batched"
    assert choose_memory(Engine(), "cuda", torch.empty(4096, 4096)) == "save"
    assert choose_memory(Engine(), "cuda", None) == choose_memory(Engine(), "cpu", None)
    assert choose_memory(Engine(), "cuda", None) == "recompute"


@pytest.mark.parametrize(
    ("side", "layers", "expected"),
    [(768, 1, False), (768, 2, True), (2048, 2, False), (2048, 16, True), (4096, 4, False)],
)
def test_groups_pay_while_starting_operations_takes_longer_than_they_do(side, layers, expected):
    assert prefers_group((side, side), layers) is expected
    assert group_size((768, 768)) >= 72 and group_size((4096, 4096)) == 4
