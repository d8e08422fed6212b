"""Diffusion models: sizes, the loss, what stands around the network, and files of diffusers."""

import importlib.util
import json
import shutil

import pytest
import torch
from torch import nn

from experiments.config.compose import compose_config, register
from experiments.errors import ConfigError, DataError, UserError
from experiments.hub.fingerprints import compute_fingerprint, find_weights
from experiments.models.byte_tokenizers import make_clip_byte_tokenizer
from experiments.models.head import Head
from experiments.models.latent_diffusion import Denoiser, generate_image, prior_preservation_loss

NONE, NOISE = Head(kind="none"), Head(kind="denoising")
TEXT = ["q_proj", "k_proj", "v_proj", "out_proj"]


def model(name, *overrides):
    register()
    from omegaconf import OmegaConf

    return OmegaConf.to_object(
        compose_config([f"model={name}", "task=none", "source=none", *overrides]).model
    )


def numbers(net):
    return sum(value.numel() for value in net.parameters())


def adapted(compose, method, *overrides):
    from experiments.run.build import count_parameters

    run = compose(["mode=count", "model=sd15", "task=none", f"method={method}", *overrides])
    net = run.method.apply(run.model.build(NONE, None, meta=True), run.model.head)
    return count_parameters(net, run.model.head)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "overrides", "expected"),
    [
        ("fourierft", ["source=ours"], 192_000),  # 0.19M: n=1500 on 128 projections
        ("fourierft", ["method.n=500", "method.alpha=1"], 64_000),
        ("lora", ["source=ours"], 12_356_352),  # 12.4M: r=62
        ("lora", ["source=authors"], 3_188_736),
        ("full", ["source=ours"], 859_520_964),
        ("full", ["source=ours", "model.train_text_encoder=true"], 982_581_444),
    ],
)
def test_counts_of_table_13(method, overrides, expected, compose):
    found = adapted(compose, method, *overrides)
    assert found["adapter"] == expected and found["head"] == 0
    assert found["base"] >= 859_520_964


@pytest.mark.slow
def test_lora_on_attention_and_text_encoder_gives_no_printed_count(compose):
    targets = "[to_q,to_k,to_v,to_out.0,q_proj,k_proj,v_proj,out_proj]"
    choice = ["model.train_text_encoder=true", f"model.attention={targets}"]
    one = adapted(compose, "lora", "method.r=1", "method.alpha=1", *choice)["adapter"]
    assert one == 199_296 + 12 * 4 * 2 * 768
    assert not [r for r in range(1, 200) if 12.35e6 <= r * one < 12.45e6]


def test_loss_is_the_photos_and_the_weighted_class():
    """DreamBooth, Eq. 2: mean of the photos' errors + lambda * mean of the class images'."""
    errors = torch.tensor([1.0, 10.0, 3.0, 20.0])
    labels = torch.tensor([0, 1, 0, 1])
    loss = prior_preservation_loss(errors, labels, torch.where(labels == 1, 0.5, 1.0))
    assert loss.item() == pytest.approx((1 + 3) / 2 + 0.5 * (10 + 20) / 2)
    assert prior_preservation_loss(errors[:1], labels[:1], torch.ones(1)).item() == 1.0


class Stub(nn.Module):
    """A U-Net that says what it is told to."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, noisy, steps, encoder_hidden_states):
        self.seen.append((noisy, steps))
        return type("Output", (), {"sample": self.answer})


def scheduler(**changes):
    from diffusers import DDPMScheduler

    return DDPMScheduler(**(model("sd15").sizes["scheduler"] | changes))


def batch(rows=3):
    generator = torch.Generator().manual_seed(0)
    shape = rows, 4, 8, 8
    return {
        "mean": torch.randn(shape, generator=generator),
        "deviation": torch.full(shape, 0.1),
        "labels": torch.zeros(rows, dtype=torch.long),
        "weights": torch.ones(rows),
        "states": torch.zeros(rows, 77, 32),
    }


@pytest.mark.slow
def test_what_is_predicted():
    """Noise, or alpha noise - sigma x for models that predict the velocity (Salimans and Ho)."""
    rows = batch()
    noise, steps = torch.randn_like(rows["mean"]), torch.tensor([10, 500, 990])
    plain = Denoiser(Stub(noise), scheduler())
    out = plain(**rows, noise=noise, steps=steps)
    assert out["loss"].item() == 0 and out["logits"].shape == (3,)

    share = plain.noise.alphas_cumprod[steps].view(3, 1, 1, 1)
    expected = share.sqrt() * rows["mean"] + (1 - share).sqrt() * noise
    assert torch.allclose(plain.unet.seen[0][0], expected)
    velocity = share.sqrt() * noise - (1 - share).sqrt() * rows["mean"]
    other = Denoiser(Stub(velocity), scheduler(prediction_type="v_prediction"))
    assert other(**rows, noise=noise, steps=steps)["loss"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_training_draws_latent_noise_and_step_anew_from_the_global_generator():
    net, rows = Denoiser(Stub(torch.zeros(3, 4, 8, 8)), scheduler()), batch()
    torch.manual_seed(1)
    first = [net(**rows)["logits"] for _ in range(2)]
    torch.manual_seed(1)
    again = net(**rows)["logits"]
    assert torch.equal(first[0], again) and not torch.equal(first[0], first[1])
    steps = torch.cat([seen[1] for seen in net.unet.seen])
    assert steps.min() >= 0 and steps.max() < 1000 and len(set(steps.tolist())) > 3


@pytest.fixture(scope="module")
def tiny():
    return model("sd_tiny")


@pytest.fixture(scope="module")
def space(tiny):
    return tiny.processor(None)


@pytest.mark.slow
def test_random_weights_are_the_same_for_every_run(tiny, space):
    """They stand for downloaded ones; and the global generator is left alone."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = tiny.build(NOISE, None)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(6)
    for net in (tiny.build(NOISE, None).unet, space.base()):
        for one, two in zip(first.unet.parameters(), net.parameters(), strict=True):
            assert torch.equal(one, two)


@pytest.mark.slow
def test_latents_are_scaled_and_as_many_as_the_factor_says(tiny, space):
    from PIL import Image

    images = [Image.new("RGB", (32, 32), colour) for colour in ("black", "red")]
    mean, deviation = space.encode(images)
    assert mean.shape == deviation.shape == (2, 4, 32 // tiny.factor, 32 // tiny.factor)
    assert space.factor == tiny.factor == 4 and model("sd15").factor == 8
    pixels = torch.full((1, 3, 32, 32), -1.0)
    with torch.no_grad():
        direct = space.vae.encode(pixels).latent_dist
    assert torch.allclose(mean[:1], 0.18215 * direct.mean)
    assert torch.allclose(deviation[:1], 0.18215 * direct.std)


@pytest.mark.slow
@pytest.mark.parametrize("option", [[], [f"model.attention={['to_q', *TEXT]}".replace("'", "")]])
def test_text_encoder_is_trained_only_if_asked_for(option, compose):
    choice = [f"model.train_text_encoder={bool(option)}".lower(), *option]
    run = compose(["model=sd_tiny", "task=dreambooth", *choice])
    net = run.method.apply(run.model.build(NOISE, None), run.model.head)
    space = run.model.processor(None)
    told = {
        key: value[None].repeat(3, *value.dim() * [1]) for key, value in space.told("x").items()
    }
    assert set(told) == ({"tokens"} if option else {"states"})
    rows = batch() | {"states": None} | told
    rows = {key: value for key, value in rows.items() if value is not None}
    net(**rows)["loss"].backward()
    touched = {name for name, value in net.named_parameters() if value.grad is not None}
    assert any("text_encoder" in name for name in touched) == bool(option)
    assert all(bool(value.grad.any()) for value in net.parameters() if value.requires_grad)


@pytest.mark.slow
def test_gradient_checkpointing_changes_nothing(tiny):
    gradients = []
    for checkpointing in (False, True):
        net = tiny.build(NOISE, None).train()
        if checkpointing:
            net.activation_checkpointing_enable(activation_checkpointing_kwargs=None)
        torch.manual_seed(0)
        net(**batch())["loss"].backward()
        gradients.append(net.unet.conv_in.weight.grad)
    assert torch.allclose(*gradients, atol=1e-7) and gradients[0].any()


@pytest.mark.slow
def test_a_perfect_denoiser_of_one_photo_draws_that_photo(space, data_folder):
    """Loss and sampler agree on schedule, scale and sign: what has no loss draws what it knows."""
    import numpy as np

    from experiments.tasks import image_files

    photo = image_files.crop_square(image_files.read(data_folder / "dreambooth/dog/00.jpg"), 32)
    mean, _ = space.encode([photo])
    known = mean + torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    unet = space.base()  # what a random autoencoder encodes is small; `known` is of the usual size

    def forward(noisy, steps, encoder_hidden_states, return_dict=True, **options):
        share = space.noise.alphas_cumprod[steps].reshape(-1, 1, 1, 1)
        found = (noisy - share.sqrt() * known) / (1 - share).sqrt()
        return type("Output", (), {"sample": found}) if return_dict else (found,)

    unet.forward = forward
    rows = {"labels": torch.tensor([0]), "weights": torch.ones(1), "states": torch.zeros(1, 77, 32)}
    net = Denoiser(unet, space.noise)
    assert net(mean=known, deviation=0 * known, **rows)["loss"].item() < 1e-9
    how = {"side": 32, "steps": 20, "guidance": 1.0}
    drawn = [
        np.asarray(generate_image(space.pipeline(unet), "x", seed=seed, **how), float)
        for seed in (1, 2)
    ]
    with torch.no_grad():
        decoded = space.vae.decode(known / space.vae.config.scaling_factor).sample[0]
    expected = ((decoded / 2 + 0.5).clamp(0, 1) * 255).permute(1, 2, 0).numpy()
    untouched = np.asarray(generate_image(space.pipeline(space.base()), "x", seed=1, **how), float)
    errors = [np.abs(image - expected).mean() for image in (*drawn, untouched)]
    assert max(errors[:2]) < 0.1 * errors[2], errors


def test_byte_tokenizer_tells_prompts_apart():
    tokenizer = make_clip_byte_tokenizer(77)
    ids = tokenizer("a sks dog", padding="max_length", max_length=77)["input_ids"]
    assert len(ids) == 77 and (ids[0], ids[-1]) == (512, 513)
    assert ids != tokenizer("a sky dog", padding="max_length", max_length=77)["input_ids"]
    assert len(tokenizer) == model("sd_tiny").sizes["text_encoder"]["vocab_size"]


# Files of diffusers


@pytest.fixture(scope="module")
def folder(space, tmp_path_factory):
    """A pipeline as diffusers writes it."""
    place = tmp_path_factory.mktemp("pipeline") / "tiny"
    pipeline = space.pipeline(space.base())
    pipeline.scheduler = space.noise
    pipeline.save_pretrained(place)
    return place


@pytest.mark.slow
def test_a_folder_gives_the_same_network(folder, tiny, space):
    local = model("sd_tiny", "model.pretrained=true", f"model.path={folder}")
    source = local.locate(offline=True)
    for one, two in zip(
        tiny.build(NOISE, None).parameters(), local.build(NOISE, source).parameters(), strict=True
    ):
        assert torch.equal(one, two)
    found = local.processor(source)
    assert torch.equal(found.told("a dog")["states"], space.told("a dog")["states"])
    assert found.name == compute_fingerprint(find_weights(folder)) != space.name
    assert found.noise.config.prediction_type == "epsilon"


@pytest.mark.slow
def test_fingerprint_follows_the_weights_and_not_copies_of_them(folder, tmp_path):
    before = compute_fingerprint(find_weights(folder))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    unet = copy / "unet/diffusion_pytorch_model.safetensors"
    shutil.copy(unet, unet.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert compute_fingerprint(find_weights(copy)) == before
    changed = bytearray(unet.read_bytes())
    changed[-1] ^= 1
    unet.write_bytes(changed)
    assert compute_fingerprint(find_weights(copy)) != before


def damage(place, how):
    if how == "size":
        path = place / "unet/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"layers_per_block": 2}))
    if how == "missing":
        from safetensors.torch import load_file, save_file

        path = place / "unet/diffusion_pytorch_model.safetensors"
        values = load_file(path)
        del values["conv_in.weight"]
        save_file(values, path)
    if how == "cut":
        path = place / "vae/diffusion_pytorch_model.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    if how == "tokenizer":
        shutil.rmtree(place / "tokenizer")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "weights are missing\n  - conv_in.weight"),
        ("size", "unet layers_per_block: found 2, expected 1"),
        ("cut", "vae: cannot be read"),
        ("tokenizer", "tokenizer: cannot be read, or another vocabulary"),
    ],
)
def test_folders_that_do_not_fit(how, words, folder, tmp_path):
    place = tmp_path / "copy"
    shutil.copytree(folder, place)
    damage(place, how)
    local = model("sd_tiny", "model.pretrained=true", f"model.path={place}")
    with pytest.raises((DataError, ConfigError), match=words):
        local.build(NOISE, str(place))
        local.processor(str(place))


def test_path_without_a_pipeline(tmp_path):
    local = model("sd15", f"model.path={tmp_path}")
    with pytest.raises(DataError, match="model_index.json not found"):
        local.locate()


def test_weights_that_are_not_here():
    with pytest.raises(UserError, match="stable-diffusion-v1-5 was not found locally"):
        model("sd15").locate(offline=True)


def test_without_diffusers_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for use in (
        lambda: model("sd_tiny").locate(),
        lambda: model("sd15").build(NONE, None, meta=True),
    ):
        with pytest.raises(UserError, match=r"\[diffusion\]"):
            use()


@pytest.mark.slow
def test_an_exported_run_is_diffusers_own_and_draws_the_same(compose, data_folder, tmp_path):
    """What plain diffusers loads draws, of the run's noise, what the run drew."""
    import numpy as np
    from diffusers import StableDiffusionPipeline
    from PIL import Image

    from experiments.commands.export import export_model
    from experiments.run.main import run

    run(
        compose(
            [
                *("model=sd_tiny", "task=dreambooth", "task.prior_weight=0", "task.resolution=32"),
                *("task.steps=3", "train.epochs=2", f"task.path={data_folder}/dreambooth"),
                *('task.prompts=["a {token} {class_name}"]', f"output={tmp_path}"),
            ]
        )
    )
    place = next(tmp_path.rglob("metrics.json")).parent
    export_model(place, tmp_path / "plain", [])
    loaded = StableDiffusionPipeline.from_pretrained(tmp_path / "plain", use_safetensors=True)
    with Image.open(place / "images/a-sks-dog/00.png") as image:
        how = {"seed": int(image.text["seed"]), "side": 32, "steps": 3, "guidance": 7.5}
        drawn = np.asarray(image).astype(int)
    loaded.set_progress_bar_config(disable=True)
    again = np.asarray(generate_image(loaded, "a sks dog", **how)).astype(int)
    assert np.abs(again - drawn).max() <= 1
    untouched = model("sd_tiny").processor(None)
    other = generate_image(untouched.pipeline(untouched.base()), "a sks dog", **how)
    assert np.abs(np.asarray(other).astype(int) - drawn).max() >= 5
