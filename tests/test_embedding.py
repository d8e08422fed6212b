"""Adapted embeddings, and single rows of an update."""

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel, get_peft_model
from torch import nn

from fourierft import FourierFTConfig
from fourierft.bases import update_rows as module
from fourierft.bases.transform import BASES, make_transform
from fourierft.bases.update_rows import update_rows
from fourierft.embedding import FourierFTEmbedding
from fourierft.spectrum import sample_entries


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("shape", [(12, 9), (13, 8), (1, 5)])
def test_rows_are_those_of_the_update(shape, basis, monkeypatch):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 4)
    n = min(40, shape[0] * shape[1])
    transform = make_transform(shape, sample_entries(shape, n, 3), basis, 3)
    c = torch.randn(n, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(shape[0], (9,))
    found, expected = update_rows(transform, c, rows), transform.update(c)[rows]
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, c, upstream), torch.autograd.grad(expected, c, upstream)
    )


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8, padding_idx=0)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        return self.head(self.words(tokens))


def adapted(**values):
    torch.manual_seed(0)
    config = FourierFTConfig(**{"n_frequency": 15, "target_modules": ["words"], **values})
    return get_peft_model(Net(), config).double().eval()


@pytest.fixture
def tokens():
    return torch.randint(20, (4, 6), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("values", [{}, {"orientation": "algorithm1"}, {"entry_rows": 2}])
def test_output_gradient_merging_and_files(values, tokens, tmp_path):
    model = adapted(**values)
    layer = model.get_base_model().words
    assert type(layer) is FourierFTEmbedding
    c, weight = layer.coefficients("default"), layer.get_base_layer().weight
    expected = F.embedding(tokens, weight + layer.get_delta_weight("default"))
    found = layer(tokens)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, c, upstream), torch.autograd.grad(expected, c, upstream)
    )
    output, before = model(tokens), weight.clone()
    model.merge_adapter()
    torch.testing.assert_close(model(tokens), output)
    model.unmerge_adapter()
    assert torch.equal(weight, before)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    torch.manual_seed(0)
    read = PeftModel.from_pretrained(Net().double(), tmp_path)
    torch.testing.assert_close(read(tokens), output)
    torch.testing.assert_close(read.merge_and_unload()(tokens), output)


def test_rows_of_a_batch_and_several_adapters(tokens):
    model = adapted()
    model.add_adapter("other", FourierFTConfig(n_frequency=9, target_modules=["words"]))
    model.double()
    layer = model.get_base_model().words
    updates = {name: layer.get_delta_weight(name) for name in ("default", "other")}
    weight = layer.get_base_layer().weight
    names = ["other", "__base__", "default", "other"]
    found = model(tokens, adapter_names=names)
    for row, name in enumerate(names):
        total = weight + updates.get(name, 0)
        expected = model.get_base_model().head(F.embedding(tokens[row], total))
        torch.testing.assert_close(found[row], expected)
    model.base_model.set_adapter(["default", "other"])
    total = weight + updates["default"] + updates["other"]
    torch.testing.assert_close(layer(tokens), F.embedding(tokens, total))


def test_scaled_embeddings_scale_the_update(tokens):
    """As Gemma's do, whose rows are multiplied by sqrt(d)."""

    class Scaled(nn.Embedding):
        embed_scale = 3.0

        def forward(self, tokens):
            return super().forward(tokens) * self.embed_scale

    net = Net()
    net.words = Scaled(20, 8)
    model = get_peft_model(net, FourierFTConfig(n_frequency=15, target_modules=["words"]))
    expected = model(tokens)
    torch.testing.assert_close(model.merge_and_unload()(tokens), expected, rtol=1e-4, atol=1e-4)


def test_weights_that_calls_change_are_refused():
    net = Net()
    net.words = nn.Embedding(20, 8, max_norm=1.0)
    config = FourierFTConfig(n_frequency=15, target_modules=["words"])
    with pytest.raises(ValueError, match="words: max_norm=1.0 changes W0 at every call"):
        get_peft_model(net, config)
    assert type(net.words) is nn.Embedding


def test_shapes_on_the_meta_device():
    with torch.device("meta"):
        net = Net()
    model = get_peft_model(net, FourierFTConfig(n_frequency=15, target_modules=["words"]))
    assert model(torch.zeros(2, 3, dtype=torch.int64, device="meta")).shape == (2, 3, 3)
