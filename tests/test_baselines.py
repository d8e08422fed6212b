"""AdaLoRA, DyLoRA and bottleneck adapters: what trains, how it starts, what is kept, how it
ends."""

import copy
import itertools
import math
import types

import pytest
import torch
from safetensors.torch import load_file

from experiments.errors import ConfigError, UserError
from experiments.methods import AdaLoRA, Bottleneck, DyLoRA
from experiments.methods.bottleneck import Activation, Place
from experiments.models import CausalLM, Encoder
from experiments.models.head import Head
from fourierft.counting import count

WIDTH, LAYERS = 32, 3
SIZES = {
    "vocab_size": 300,
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
ENCODER = Encoder(
    name="tiny",
    heads=["classification"],
    attention=["query", "value"],
    head=["classifier"],
    repo="owner/tiny",
    architecture="roberta",
    pretrained=False,
    sizes=SIZES | {"type_vocab_size": 1, "pad_token_id": 1},
)
OF_GPT2 = {"n_embd": WIDTH, "n_layer": LAYERS, "n_head": 2, "n_positions": 40, "vocab_size": 300}


def language(architecture):
    return CausalLM(
        name="tiny",
        heads=["language"],
        attention=["q_proj", "v_proj"],
        repo=None,
        architecture=architecture,
        pretrained=False,
        sizes=OF_GPT2 if architecture == "gpt2" else SIZES | {"num_key_value_heads": 2},
    )


def bottleneck(name, **changes):
    fields = {
        "houlsby": {"places": [Place.attention, Place.feed_forward], "activation": Activation.gelu},
        "lin": {"places": [Place.block], "norm": True},
        "pfeiffer": {"places": [Place.feed_forward]},
        "adapterdrop": {"places": [Place.feed_forward], "dropped": 1},
    }[name]
    plain = {"width": 4, "norm": False, "activation": Activation.relu}
    return Bottleneck(name=name, **plain | fields | changes)


def dylora(targets=("query", "value"), **changes):
    return DyLoRA(name="dylora", targets=list(targets), **{"r": 4, "alpha": 8.0} | changes)


def adalora(targets=("query", "value"), **changes):
    fields = {"init_r": 6, "target_r": 4, "alpha": 8.0, "warmup": 0.1, "final": 0.3}
    fields |= {"interval": 1, "orthogonality": 0.1}
    return AdaLoRA(name="adalora", targets=list(targets), **fields | changes)


METHODS = {
    "adalora": (adalora(), 2 * LAYERS * 6 * (2 * WIDTH + 1)),
    "dylora": (dylora(), 2 * LAYERS * 4 * 2 * WIDTH),
    "houlsby": (bottleneck("houlsby"), 2 * LAYERS * (4 * (2 * WIDTH + 1) + WIDTH)),
    "lin": (bottleneck("lin"), LAYERS * (4 * (2 * WIDTH + 1) + WIDTH + 2 * WIDTH)),
    "pfeiffer": (bottleneck("pfeiffer"), LAYERS * (4 * (2 * WIDTH + 1) + WIDTH)),
    "adapterdrop": (bottleneck("adapterdrop"), (LAYERS - 1) * (4 * (2 * WIDTH + 1) + WIDTH)),
}
BOTTLENECKS = ["houlsby", "lin", "pfeiffer", "adapterdrop"]


def base():
    torch.manual_seed(0)
    return ENCODER.build(Head(kind="classification", labels=3), None)


def applied(name):
    net = base()
    torch.manual_seed(1)
    return METHODS[name][0].apply(net, ENCODER.head)


def batch():
    ids = torch.randint(5, 300, (4, 12), generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "labels": torch.tensor([0, 1, 2, 1])}


def logits(net, **given):
    with torch.no_grad():
        return net.eval()(**given or batch()).logits


def step(net, callback=None, steps=1, rate=1e-2, overflow=None):
    """Real steps, with what the method does in between; names that got a gradient.

    That of index `overflow` is left out, as a GradScaler does.
    """
    net.train()
    optimizer = torch.optim.AdamW([one for one in net.parameters() if one.requires_grad], lr=rate)
    state = types.SimpleNamespace(max_steps=steps, global_step=0)
    if callback:
        callback.on_train_begin(None, state, None)
    for state.global_step in range(steps):
        if callback:
            callback.on_step_begin(None, state, None)
        skipped = state.global_step == overflow
        (net(**batch()).loss * (math.inf if skipped else 1)).backward()
        if not skipped:
            optimizer.step()
        if callback:
            told = types.SimpleNamespace(step_was_skipped=skipped)
            callback.on_optimizer_step(None, state, None, optimizer=told)
        moved = {name for name, value in net.named_parameters() if value.grad is not None}
        optimizer.zero_grad()
    return moved


@pytest.mark.parametrize("name", METHODS)
def test_what_trains_and_how_many(name):
    net, numbers = applied(name), METHODS[name][1]
    found = count(net, ENCODER.head)
    whole = sum(value.numel() for value in base().parameters())
    assert (found.adapter, found.base) == (numbers, whole)
    trained = {path for path, value in net.named_parameters() if value.requires_grad}
    old = {path for path, _ in base().named_parameters()}
    assert {path for path in trained & old if "classifier" not in path} == set()
    before = {path: value.detach().clone() for path, value in net.named_parameters()}
    assert step(net) == trained
    moved = {path for path, value in net.named_parameters() if not torch.equal(value, before[path])}
    assert moved and moved <= trained


@pytest.mark.parametrize("name", METHODS)
def test_starts_as_the_base_model(name):
    assert torch.equal(logits(applied(name)), logits(base()))


@pytest.mark.parametrize("name", METHODS)
def test_what_is_kept_gives_the_same_outputs(name, tmp_path):
    method, net = METHODS[name][0], applied(name)
    [callback] = method.callbacks(net, 0) or [None]
    step(net, callback, steps=6)
    method.save(net, tmp_path)
    expected = logits(net)
    assert not torch.allclose(expected, logits(base()), atol=1e-3)
    again = method.restore(base(), tmp_path, merged=False)
    torch.testing.assert_close(logits(again), expected, rtol=0, atol=1e-6)
    if name in BOTTLENECKS:
        with pytest.raises(UserError, match=f"method={name}: cannot be merged"):
            method.restore(base(), tmp_path)
        return
    restored = method.restore(base(), tmp_path)
    torch.testing.assert_close(logits(restored), expected, rtol=0, atol=1e-5)
    assert dict(restored.named_parameters()).keys() == dict(base().named_parameters()).keys()


# AdaLoRA


@pytest.mark.parametrize("overflow", [None, 3, 13])
def test_adalora_ends_at_its_budget(overflow, tmp_path):
    """Also where gradients overflow in half precision, once its last step of allocation."""
    net, method = applied("adalora"), METHODS["adalora"][0]
    [callback] = method.callbacks(net, 0)
    step(net, callback, steps=20, overflow=overflow)
    configuration = net.active_peft_config
    assert (configuration.total_step, configuration.tinit, configuration.tfinal) == (20, 2, 6)
    method.save(net, tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    left = sum(value.numel() for name, value in stored.items() if ".lora_" in name)
    assert left == 2 * LAYERS * 4 * (2 * WIDTH + 1)
    ranks = {value.shape[0] for name, value in stored.items() if "lora_A" in name}
    assert len(ranks) > 1, "every matrix has kept the same rank"


def test_adalora_saving_does_not_touch_the_schedule(tmp_path):
    net, method = applied("adalora"), METHODS["adalora"][0]
    [callback] = method.callbacks(net, 0)
    step(net, callback, steps=6)
    kept = copy.deepcopy(net.active_peft_config.rank_pattern)
    method.save(net, tmp_path)
    assert net.active_peft_config.rank_pattern == kept
    assert all(name.endswith(".lora_E.default") for name in kept)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_adalora_in_hardly_any_steps(steps):
    net, method = applied("adalora"), METHODS["adalora"][0]
    before = copy.deepcopy(net.state_dict())
    step(net, method.callbacks(net, 0)[0], steps=steps)
    after = net.state_dict()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved and all(".lora_" in name or "classifier" in name for name in moved)
    assert all(value.isfinite().all() for value in after.values())


def test_adalora_wants_orthogonal_factors():
    net, method = applied("adalora"), METHODS["adalora"][0]
    assert method.penalty(net).item() == pytest.approx(0.1 * 6**0.5, rel=0.05), "almost zero"
    with torch.no_grad():
        for name, value in net.named_parameters():
            if ".lora_A." in name or ".lora_B." in name:
                torch.nn.init.orthogonal_(value)
    assert method.penalty(net).item() < 1e-5
    assert METHODS["dylora"][0].penalty(net) is None


def cut(step, after):
    """The Trainer's step, interrupted after so many calls."""
    calls = itertools.count(1)

    def stepping(*args):
        if next(calls) > after:
            raise KeyboardInterrupt
        return step(*args)

    return stepping


def resumed(compose, data_folder, tmp_path, *overrides):
    """Folders of the same run, in one go and interrupted before its tenth step of sixteen."""
    from experiments.run.main import run
    from experiments.training import trainer

    places = []
    for name in ("whole", "cut"):
        asked = compose(
            [
                *("model=roberta_base", "model.pretrained=false", "task=cola", "source=none"),
                *("+model.sizes.hidden_size=32", "+model.sizes.num_hidden_layers=2"),
                *("+model.sizes.num_attention_heads=2", "+model.sizes.intermediate_size=64"),
                *("task.train_rows=128", "task.eval_rows=32", "train.batch_size=32"),
                *("train.epochs=4", "train.learning_rate=1e-2", "train.select=last"),
                *(f"task.path={data_folder}/glue/cola", f"output={tmp_path}/{name}", *overrides),
            ]
        )
        if name == "cut":
            step = trainer.Trainer.training_step
            with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setattr(trainer.Trainer, "training_step", cut(step, 9))
                run(asked)
        record = run(asked)
        places.append(next((tmp_path / name).rglob("metrics.json")).parent)
    assert record.time["resumed_from"] == 8
    return places


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (
            *("method=adalora", "method.init_r=12", "method.target_r=6", "method.interval=1"),
            *("method.warmup=0.4", "method.beta1=0.99", "method.beta2=0.99"),  # a long memory
        ),
        ("method=dylora", "method.r=4"),
        ("method=houlsby", "method.width=4"),
    ],
    ids=lambda overrides: overrides[0],
)
def test_a_resumed_run_ends_as_if_nothing_had_been(overrides, compose, data_folder, tmp_path):
    """Importances, ranks left, ranks drawn: bit for bit, with the reduction under way."""
    alpha = [] if "houlsby" in overrides[0] else ["method.alpha=8"]
    adapters = []
    for place in resumed(compose, data_folder, tmp_path, *overrides, *alpha):
        [file] = (place / "adapter").glob("*.safetensors")
        adapters.append(load_file(file))
    whole, cut = adapters
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())


# DyLoRA


def test_dylora_draws_one_rank_a_step_from_the_seed_alone():
    net, method = applied("dylora"), METHODS["dylora"][0]

    def draws(seed, steps):
        [callback] = method.callbacks(net, seed)
        found = []
        for number in steps:
            callback.on_step_begin(None, types.SimpleNamespace(global_step=number), None)
            [rank] = {layer.drawn for layer in callback.layers}
            found.append(rank)
        return found

    whole = draws(0, range(200))
    assert set(whole) == {1, 2, 3, 4} and min(map(whole.count, set(whole))) > 25
    assert draws(0, range(100, 200)) == whole[100:], "a resumed run draws otherwise"
    assert draws(1, range(200)) != whole


def test_dylora_is_lora_of_the_rank_that_is_asked_for():
    net = applied("dylora")
    step(net, METHODS["dylora"][0].callbacks(net, 0)[0], steps=4)
    layer = net.roberta.encoder.layer[0].attention.self.query
    inputs = torch.randn(5, WIDTH)
    for layer.evaluated in (1, 3, 4):
        rank = layer.evaluated
        update = layer.lora_B[:, :rank] @ layer.lora_A[:rank] * (8.0 / rank)
        expected = layer.base_layer(inputs) + inputs @ update.T
        torch.testing.assert_close(layer.eval()(inputs), expected)
    layer.train().drawn = 1
    layer.evaluated = 4
    assert not torch.allclose(layer(inputs), layer.eval()(inputs))


def test_dylora_keeps_every_rank_and_merges_the_asked_one(tmp_path):
    net = applied("dylora")
    step(net, METHODS["dylora"][0].callbacks(net, 0)[0], steps=4)
    METHODS["dylora"][0].save(net, tmp_path)
    for layer in METHODS["dylora"][0].callbacks(net, 0)[0].layers:
        layer.evaluated = 2
    restored = dylora(evaluated=2).restore(base(), tmp_path)
    torch.testing.assert_close(logits(restored), logits(net), rtol=0, atol=1e-5)


# Bottlenecks


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("name", BOTTLENECKS)
def test_other_architectures(name, architecture):
    part = language(architecture)
    torch.manual_seed(0)
    net = part.build(Head(kind="language"), None)
    ids = {"input_ids": batch()["input_ids"]}
    before = logits(net, **ids)
    net = METHODS[name][0].apply(net, [])
    assert torch.equal(logits(net, **ids), before)
    assert count(net, []).adapter == METHODS[name][1]
    net.train()(**ids, labels=ids["input_ids"]).loss.backward()
    assert all((value.grad is not None) is value.requires_grad for value in net.parameters())
    for value in net.parameters():
        if value.requires_grad:
            torch.nn.init.normal_(value, std=0.1)
    assert not torch.allclose(logits(net, **ids), before)
    texts = net.eval().generate(**ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert texts.shape == (4, 16)


@pytest.mark.parametrize("architecture", ["bert", "vit"])
def test_encoders_of_other_names(architecture):
    from transformers import AutoConfig, AutoModel

    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    with torch.device("meta"):
        net = AutoModel.from_config(
            AutoConfig.for_model(architecture, **{name: SIZES[name] for name in names})
        )
    for name in BOTTLENECKS:
        adapted = METHODS[name][0].apply(copy.deepcopy(net), [])
        assert count(adapted, []).adapter == METHODS[name][1]


def test_houlsby_is_what_its_paper_says():
    """f(h W_down + b) W_up + b + h between the projection and the residual's normalisation."""
    net = applied("houlsby").eval()
    output = net.roberta.encoder.layer[1].attention.output
    part = output.dense
    for value in part.parameters():
        torch.nn.init.normal_(value, std=0.1)
    inputs, residual = torch.randn(2, 5, WIDTH), torch.randn(2, 5, WIDTH)
    hidden = part.base_layer(inputs)
    narrow = torch.nn.functional.gelu(hidden @ part.down.weight.T + part.down.bias)
    adapted = hidden + narrow @ part.up.weight.T + part.up.bias
    expected = output.LayerNorm(adapted + residual)
    torch.testing.assert_close(output(inputs, residual), expected)


def test_the_lowest_blocks_are_dropped():
    net = applied("adapterdrop")
    trained = {path for path, value in net.named_parameters() if value.requires_grad}
    blocks = {path.split(".")[3] for path in trained if ".layer." in path}
    assert blocks == {"1", "2"}


def test_norms_are_trained_where_asked():
    plain, more = (
        count(bottleneck("houlsby", train_norms=asked).apply(base(), ENCODER.head), ENCODER.head)
        for asked in (False, True)
    )
    assert more.adapter - plain.adapter == LAYERS * 2 * 2 * WIDTH
    assert more.base == plain.base


@pytest.mark.slow
def test_bottlenecks_are_exported_by_no_one(compose, tmp_path, data_folder):
    from experiments.commands import export
    from experiments.run.main import run

    choice = ["model=minilm", "model.pretrained=false", "task=sst2", "method=houlsby"]
    choice += ["profile=smoke", "model.sizes.num_hidden_layers=1", f"output={tmp_path}/runs"]
    run(compose([*choice, f"task.path={data_folder}/glue/sst2"]))
    place = next((tmp_path / "runs").rglob("metrics.json")).parent
    with pytest.raises(UserError, match=r"method=houlsby.*cannot be merged"):
        export.export_model(place, tmp_path / "out", [])


# Mistakes


@pytest.mark.parametrize(
    ("method", "keys"),
    [
        (
            adalora(init_r=4, alpha=0.0, warmup=0.8, interval=0, beta1=1.0, orthogonality=-1.0),
            ["init_r", "alpha", "final", "interval", "beta1", "orthogonality"],
        ),
        (adalora(target_r=0, dropout=1.0, final=1.0), ["target_r", "dropout", "final", "final"]),
        (dylora(targets=(), r=0, alpha=-1.0, evaluated=5), ["targets", "r", "alpha", "evaluated"]),
        (bottleneck("lin", width=0, places=[], dropped=-1), ["width", "places", "dropped"]),
    ],
)
def test_settings_are_checked(method, keys):
    found = [problem.partition("=")[0].removeprefix("method.") for problem in method.problems()]
    assert found == keys


@pytest.mark.parametrize("name", METHODS)
def test_settings_that_fit(name):
    assert list(METHODS[name][0].problems()) == []


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (dylora(targets=["query", "vlaue"]), "method.targets=vlaue"),
        (dylora(targets=["word_embeddings"]), "is a Embedding"),
        (adalora(targets=["vlaue"]), "method.targets=vlaue"),
        (bottleneck("pfeiffer", dropped=LAYERS), f"method.dropped={LAYERS}"),
    ],
)
def test_what_does_not_fit_the_model(method, said):
    with pytest.raises(ConfigError) as caught:
        method.apply(base(), ENCODER.head)
    assert said in str(caught.value)


def test_blocks_of_unknown_form():
    with pytest.raises(ConfigError, match="no known form"):
        METHODS["lin"][0].apply(torch.nn.Sequential(torch.nn.Linear(2, 2)), [])
