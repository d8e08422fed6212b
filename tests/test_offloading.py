"""Models whose weights accelerate keeps elsewhere: as right as in memory, and as with LoRA."""

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import BertConfig, BertModel

from fourierft import FourierFTConfig, FourierFTLayer, configure, export_compact, import_compact
from fourierft.frozen_weight import is_plain

CPU = torch.device("cpu")
TARGETS = ["query", "dense"]


def base():
    torch.manual_seed(0)
    settings = BertConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        attn_implementation="eager",
    )
    return BertModel(settings).eval()


def adapted(net=None, seed=1):
    net = base() if net is None else net
    torch.manual_seed(seed)
    config = FourierFTConfig(n_frequency=200, scaling=200.0, target_modules=TARGETS)
    return get_peft_model(net, config).eval()


IDS = torch.arange(12).view(2, 6) + 5


def outputs(model):
    with torch.no_grad():
        return model(input_ids=IDS)[0]


def to_cpu(model, _):
    return cpu_offload(model, execution_device=CPU)


def to_disk(model, folder):
    return disk_offload(model, str(folder / "weights"), execution_device=CPU)


def by_map(model, folder):
    """Encoder on disk, the rest in memory."""
    inner = "base_model.model." if isinstance(model, PeftModel) else ""
    device_map = {f"{inner}embeddings": "cpu", f"{inner}pooler": "cpu", f"{inner}encoder": "disk"}
    return dispatch_model(model, device_map, main_device="cpu", offload_dir=str(folder / "weights"))


WAYS = pytest.mark.parametrize("offload", [to_cpu, to_disk, by_map])


def coefficients(model):
    return [p for name, p in model.named_parameters() if "fourierft_spectrum" in name]


@WAYS
@pytest.mark.parametrize("memory", ["auto", "cache", "recompute"])
def test_outputs_are_those_of_the_model_in_memory(offload, memory, tmp_path):
    expected = outputs(adapted())
    model = adapted()
    configure(model, memory=memory)
    offload(model, tmp_path)
    assert any(p.is_meta for p in model.parameters())
    for _ in range(3):
        torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        assert torch.equal(outputs(model), outputs(base()))


@WAYS
@pytest.mark.parametrize("ran", [True, False])
def test_merging(offload, ran, tmp_path):
    model = adapted()
    expected, frozen = outputs(model), outputs(base())
    offload(model, tmp_path)
    if ran:
        outputs(model)
    model.merge_adapter()
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    with model.disable_adapter():
        assert torch.equal(outputs(model), frozen)
    model.merge_adapter()
    model.unmerge_adapter()
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    plain = model.merge_and_unload()
    torch.testing.assert_close(outputs(plain), expected, rtol=1e-4, atol=1e-5)


@WAYS
def test_base_model_that_was_offloaded_before(offload, tmp_path):
    expected = outputs(adapted())
    model = adapted(offload(base(), tmp_path))
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)


@WAYS
@pytest.mark.parametrize("low_memory", [False, True])
def test_adapter_is_loaded_into_an_offloaded_model(offload, low_memory, tmp_path):
    adapted(seed=5).save_pretrained(tmp_path / "adapter")
    path = export_compact(adapted(seed=5), tmp_path / "compact")
    expected = outputs(adapted(seed=5))
    model = PeftModel.from_pretrained(
        offload(base(), tmp_path),
        tmp_path / "adapter",
        low_cpu_mem_usage=low_memory,
        offload_dir=str(tmp_path / "again"),
    )
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    model = import_compact(offload(base(), tmp_path), path)
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)


@WAYS
def test_second_adapter(offload, tmp_path):
    adapted(seed=5).save_pretrained(tmp_path / "adapter")
    expected, first = outputs(adapted(seed=5)), outputs(adapted())
    model = offload(adapted(), tmp_path)
    model.load_adapter(tmp_path / "adapter", "other", offload_dir=str(tmp_path / "again"))
    torch.testing.assert_close(outputs(model), first, rtol=1e-4, atol=1e-5)
    model.set_adapter("other")
    torch.testing.assert_close(outputs(model), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs(model.merge_and_unload()), expected, rtol=1e-4, atol=1e-5)


@WAYS
def test_saving(offload, tmp_path):
    expected = outputs(adapted())
    model = offload(adapted(), tmp_path)
    model.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(), tmp_path / "adapter")
    assert torch.equal(outputs(loaded), expected)
    model = offload(adapted(), tmp_path)
    path = export_compact(model, tmp_path / "compact")
    assert torch.equal(outputs(import_compact(base(), path)), expected)


@WAYS
def test_training_reaches_the_coefficients_that_the_optimizer_holds(offload, tmp_path):
    """With LoRA they are lost: accelerate puts new parameters in the place of the old."""
    model, twin = adapted().train(), adapted().train()
    offload(model, tmp_path)
    optimizers = [torch.optim.SGD(coefficients(each), lr=0.1) for each in (model, twin)]
    for _ in range(2):
        for each, optimizer in zip((model, twin), optimizers, strict=True):
            for module in each.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            optimizer.zero_grad()
            each(input_ids=IDS)[0][..., :9].pow(2).sum().backward()
            optimizer.step()
    for one, other in zip(coefficients(model), coefficients(twin), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert not torch.equal(coefficients(model)[0], coefficients(adapted())[0])


def test_coefficients_without_values_are_refused():
    model = adapted()
    layer = next(m for m in model.modules() if isinstance(m, FourierFTLayer))
    layer.fourierft_spectrum.to("meta")
    with pytest.raises(RuntimeError, match="adapter .'default'.: the coefficients are on the meta"):
        layer(torch.randn(2, 32))


@pytest.mark.parametrize("before", [True, False])
def test_layers_that_a_device_map_leaves_in_memory_keep_the_one_product(before):
    def place(net):
        return dispatch_model(net, {"": "cpu"}, force_hooks=True)

    model = adapted(place(base())) if before else place(adapted())
    found = [m.base_layer for m in model.modules() if isinstance(m, FourierFTLayer)]
    assert all(hasattr(layer, "_hf_hook") and is_plain(layer) for layer in found)
    assert torch.equal(outputs(model), outputs(adapted()))
    found[0].forward = lambda x: x  # another's replacement is not looked through
    assert not is_plain(found[0])


def test_offloaded_layers_are_not_looked_through(tmp_path):
    model = to_cpu(adapted(), tmp_path)
    assert not any(is_plain(m.base_layer) for m in model.modules() if isinstance(m, FourierFTLayer))
