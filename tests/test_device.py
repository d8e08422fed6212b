"""One function decides the device; GPUs are patched in, or stand behind fake tensors."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from experiments.config.run_config import Config
from experiments.device import select_device
from experiments.errors import UserError
from experiments.methods.adalora_schedule import compute_orthogonality
from experiments.models.image_input import accept_bytes
from experiments.models.latent_diffusion import LatentSpace
from experiments.results import environment
from experiments.results.identity import to_plain
from experiments.run.description import describe_environment
from experiments.tasks import Data, dreambooth_data
from experiments.training import optimizer
from experiments.training.backends import check_device, set_matmul
from experiments.training.train_config import Matmul, Precision, Sharding, Train

RECIPE = {"epochs": 1, "batch_size": 1, "learning_rate": 1}


@pytest.fixture
def gpus(monkeypatch):
    """A machine with two GPUs, as far as torch is asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Old Card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)


def test_every_rank_has_a_gpu_of_its_own(gpus, monkeypatch):
    assert select_device() == select_device("cuda") == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert select_device() == "cuda:1"
    assert select_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert select_device() == "cpu"


def test_bf16_on_a_card_without_it_is_refused_in_a_line(gpus):
    with pytest.raises(UserError, match="train.precision=bf16: Old Card cannot"):
        check_device(Train(**RECIPE, precision=Precision.bf16))
    check_device(Train(**RECIPE, precision=Precision.bf16, device="cpu"))
    check_device(Train(**RECIPE, precision=Precision.fp16))


def test_processes_beside_gpus_do_not_share_on_the_cpu(gpus):
    check_device(Train(**RECIPE, sharding=Sharding.fsdp))
    with pytest.raises(UserError, match="train.sharding=fsdp: divides among GPUs"):
        check_device(Train(**RECIPE, sharding=Sharding.fsdp, device="cpu"))


@pytest.fixture
def own_matmul():
    """Torch's own defaults, before and after."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    products.allow_tf32, convolutions.allow_tf32 = False, True
    yield
    products.allow_tf32, convolutions.allow_tf32 = False, True


@pytest.mark.parametrize("matmul", Matmul)
def test_products_and_convolutions_round_alike(own_matmul, matmul):
    set_matmul(Train(**RECIPE, matmul=matmul))
    data = Data(train=(), evaluations={}, collate=None, fingerprint="")
    told = describe_environment(data, torch.device("cuda:0"), {})["matmul"]
    assert told == {"products": matmul.value, "convolutions": matmul.value}
    assert describe_environment(data, torch.device("cpu"), {})["matmul"] is None


def test_tf32_is_refused_where_there_is_none(gpus, monkeypatch):
    asked = Train(**RECIPE, matmul=Matmul.tf32)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
    check_device(asked)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (7, 5))
    with pytest.raises(UserError, match="train.matmul=tf32: Old Card has no TF32"):
        check_device(asked)
    with pytest.raises(UserError, match="train.matmul=tf32: needs a GPU"):
        check_device(Train(**RECIPE, matmul=Matmul.tf32, device="cpu"))


def test_a_record_from_before_the_key_was_computed_in_ieee(compose):
    now = to_plain(compose(["model=mlp", "task=toy"]))
    old = now | {"train": {name: one for name, one in now["train"].items() if name != "matmul"}}
    assert Config.identify(old) == Config.identify(now)
    other = compose(["model=mlp", "task=toy", "train.matmul=tf32"])
    assert Config.identify(to_plain(other))["train.matmul"] == "tf32"
    assert other.variant == "matmul=tf32"


def test_batches_are_pinned_where_a_gpu_trains(gpus, monkeypatch, tmp_path):
    def take(**given):
        return SimpleNamespace(device=None, **given)

    monkeypatch.setattr(optimizer, "TrainingArguments", take)

    def asked(device):
        found = optimizer.build_arguments(Train(**RECIPE, device=device), 8, tmp_path, 0)
        pinned = found.dataloader_pin_memory
        assert found.accelerator_config == {"non_blocking": pinned}
        return found.use_cpu, pinned

    assert asked("auto") == (False, True)
    assert asked("cpu") == (True, False)


def test_other_accelerators_are_not_taken_unasked(monkeypatch, tmp_path):
    """What transformers would train on there, no other part of a run would follow to."""
    for kind in ("mps", "xpu"):
        monkeypatch.setattr(getattr(torch, kind), "is_available", lambda: True, raising=False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.is_torch_mps_available", lambda: True)
    monkeypatch.setattr("transformers.training_args.is_torch_xpu_available", lambda: True)
    assert select_device() == "cpu"
    found = optimizer.build_arguments(Train(**RECIPE), 8, tmp_path, 0)
    assert found.device == torch.device("cpu")


def test_memory_of_a_run_on_the_cpu_is_the_process_s(gpus):
    peak = environment.PeakMemory(select_device("cpu")).peak()
    assert peak["peak_gpu"] is None


class Crossings(TorchDispatchMode):
    """Counts copies from the CPU to a GPU."""

    number = 0

    def __torch_dispatch__(self, operation, types, given=(), options=None):
        made = operation(*given, **(options or {}))
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        if isinstance(made, torch.Tensor) and made.device.type == "cuda" and tensors:
            self.number += tensors[0].device.type == "cpu" or tensors[-1].device.type == "cpu"
        return made


def test_orthogonality_copies_nothing_to_the_gpu():
    def matrices():
        yield "layer.lora_A.default", torch.ones(2, 8, device="cuda")
        yield "layer.lora_B.default", torch.ones(8, 2, device="cuda")

    net = SimpleNamespace(base_model=SimpleNamespace(model=SimpleNamespace()))
    net.base_model.model.named_parameters = matrices
    with FakeTensorMode(), Crossings() as copies:
        assert compute_orthogonality(net).device.type == "cuda"
    assert copies.number == 0


def test_bytes_of_images_become_floats_by_constants_copied_once(monkeypatch):
    class Net(torch.nn.Module):
        def forward(self, pixel_values):
            return pixel_values

    net = accept_bytes(Net(), [0.5, 0.4, 0.3], [0.2, 0.3, 0.4])
    pixels = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    first = net(pixel_values=pixels)
    centre, spread = (torch.tensor(v).view(3, 1, 1) for v in ([0.5, 0.4, 0.3], [0.2, 0.3, 0.4]))
    expected = (pixels.permute(0, 3, 1, 2) / 255 - centre) / spread
    assert torch.allclose(first, expected, atol=1e-6)
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("copied again"))
    assert torch.equal(net(pixel_values=pixels), first)


def test_class_images_leave_the_models_on_the_cpu(compose, gpus, monkeypatch, tmp_path):
    """diffusers' pipeline moves the processor's own text encoder, which then gets tokens there."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(dreambooth_data, "get_cache_folder", lambda _: tmp_path)
    moves = []

    class Pipeline:
        def to(self, device):
            moves.append(device)
            return self

    def draw(pipeline, prompt, **how):
        moves.append("drawn")
        return Image.new("RGB", (32, 32))

    monkeypatch.setattr(LatentSpace, "pipeline", lambda *_: Pipeline())
    monkeypatch.setattr("experiments.models.latent_diffusion.generate_image", draw)
    space = LatentSpace(
        **dict.fromkeys(("tokenizer", "noise"), None),
        **{"text_encoder": torch.nn.Linear(1, 1), "vae": torch.nn.Linear(1, 1)},
        base=lambda: torch.nn.Linear(1, 1),
        name="tiny",
        device=select_device(),
    )
    dreambooth_data.draw_class_images(space, "a dog", 1, {})
    assert moves == ["cuda:1", "drawn", "cpu"]


@pytest.mark.slow
def test_a_processor_heeds_the_asked_device(compose, gpus, monkeypatch):
    model = compose(["model=sd_tiny", "task=dreambooth"]).model
    assert model.processor(None, device="cpu").device == "cpu"
    assert model.processor(None).device == "cuda:0"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_class_images_and_prompts_on_a_gpu(compose, monkeypatch, tmp_path):
    monkeypatch.setattr(dreambooth_data, "get_cache_folder", lambda _: tmp_path)
    space = compose(["model=sd_tiny", "task=dreambooth"]).model.processor(None)
    how = {"side": 32, "steps": 2, "guidance": 1.0}
    assert len(dreambooth_data.draw_class_images(space, "a dog", 1, how)) == 1
    assert space.told("a dog")["states"].device.type == "cpu"
