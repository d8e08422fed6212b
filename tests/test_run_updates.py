"""What training added to the weights, as pages of runs show it: numbers, images, sections."""

from __future__ import annotations

import html
import json
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from records import scored
from safetensors.torch import save_file

from experiments.errors import RecordError
from experiments.hub.fingerprints import Files, compute_fingerprint
from experiments.report.__main__ import main
from experiments.report.comparison import run_index
from experiments.report.comparison.run_index import Run
from experiments.report.render import site
from experiments.report.run_page import update_images, update_section, updates
from experiments.report.run_page.updates import Entries
from experiments.results.identity import to_plain
from experiments.results.record import read_record
from experiments.run.build import build_network

LANGUAGE = ("model=stories260k", "task=e2e", "model.pretrained=false", "train.precision=fp32")
FOURIER = ("method=fourierft", "method.n=40", "method.alpha=300")

PEFT = ("model=mlp", "task=toy", "method=peft", "train.epochs=1", "train.batch_size=8")
PEFT += ("train.learning_rate=0.1",)


@pytest.fixture
def train(tmp_path, compose):
    """Writes a run whose adapter was moved from its start; returns run, layers and start."""

    def make(*overrides, seed=0):
        config = compose([*overrides, f"seed={seed}"])
        net = build_network(config, None)
        layers = {
            name: module
            for name, module in net.get_base_model().named_modules()
            if hasattr(module, "get_delta_weight")
        }
        start = {name: layer.get_delta_weight("default").detach() for name, layer in layers.items()}
        with torch.no_grad():
            for parameter in net.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn_like(parameter) * 0.3
        place = scored(tmp_path / "outputs", to_plain(config), seed, 0.5)
        (place / "adapter").mkdir()
        config.method.save(net, place / "adapter")
        return Run(place, read_record(place)), layers, start

    return make


@pytest.mark.parametrize(
    "overrides",
    [
        ("model=vit_tiny", "task=cifar10", *FOURIER),  # twelve matrices, and a head
        (*LANGUAGE, "method=lora", "method.r=2", "method.alpha=4"),
        (*PEFT, "method.peft_type=LOHA"),
        ("model=mlp", "task=toy", "method=fourierft", "method.init=zeros"),
        ("model=mlp", "task=toy", "method=fourierft", "method.basis=dct"),
        ("model=mlp", "task=toy", "method=fourierft", "method.orientation=algorithm1"),
        ("model=mlp", "task=toy", "method=fourierft", "method.scaling=norm", "method.alpha=2"),
    ],
    ids=["vit", "lora", "loha", "zeros", "dct", "algorithm1", "norm"],
)
def test_updates_are_those_of_the_trained_network(train, overrides):
    """DeltaW, and the random start that no file holds, from the stored adapter and the seed."""
    run, layers, start = train(*overrides, seed=3)
    found = updates.read_updates(run)
    assert [one.name for one in found] == list(layers)
    for one in found:
        expected = layers[one.name].get_delta_weight("default").detach()
        assert one.shape == tuple(expected.shape) and expected.norm() > 0
        np.testing.assert_allclose(one.delta(), expected.numpy(), atol=1e-6)
        begun = one.start()
        assert (begun is None) == (start[one.name].norm() == 0)
        if begun is not None:
            np.testing.assert_allclose(begun, start[one.name].numpy(), atol=1e-6)


def test_updates_of_transposed_weights_are_out_by_in(train):
    """GPT-2's weights are (in, out): its images would have inputs and outputs exchanged."""
    gpt2 = ("model=gpt2_tiny", "task=e2e", "model.pretrained=false", "train.precision=fp32")
    run, _, _ = train(*gpt2, "method.targets=[c_fc]", "method=lora", "method.r=2", "method.alpha=4")
    first, *_ = updates.read_updates(run)
    given = torch.eye(128)
    weight = first.layer.get_base_layer()
    weight.weight = torch.nn.Parameter(torch.zeros(128, 512))
    weight.bias = torch.nn.Parameter(torch.zeros(512))
    with torch.no_grad():
        assert first.shape == first.delta().shape == (512, 128)
        np.testing.assert_allclose(first.delta().T, first.layer(given).numpy(), atol=1e-5)


def test_entries_have_the_sizes_of_their_waves(train):
    """The squares of single waves add up to that of DeltaW, unless conjugates meet."""
    run, _, _ = train("model=mlp", "task=toy", "method=fourierft", "method.n=20")
    (layer,) = updates.read_updates(run)
    entries = layer.entries()
    spectrum = np.abs(np.fft.fft2(layer.delta())) * np.sqrt(2 / layer.delta().size)
    np.testing.assert_allclose(spectrum[entries.rows, entries.columns], entries.sizes, rtol=1e-3)
    moved = layer.entries(change=True).sizes
    change = np.linalg.norm(layer.delta() - layer.start())
    assert np.linalg.norm(moved) == pytest.approx(change, rel=1e-3)


def test_base_norms_of_small_random_networks_are_drawn_again(train):
    run, layers, _ = train("model=mlp", "task=toy", "method=fourierft", seed=5)
    run.record.environment["weights"], run.record.parameters["base"] = None, 4808
    expected = float(layers["hidden"].get_base_layer().weight.detach().norm())
    norms = updates.read_base_norms(run, updates.read_updates(run))
    assert norms == {"hidden": pytest.approx(expected)}


def test_base_norms_are_read_where_the_run_read_its_weights(train, tmp_path):
    """By the ends of names: files leave out a model's outer modules."""
    run, _, _ = train(*LANGUAGE, *FOURIER)
    found = updates.read_updates(run)
    weights = {
        f"layers.{block}.self_attn.{name}.weight": torch.randn(64 if name == "q_proj" else 32, 64)
        for block in (0, 1)
        for name in ("q_proj", "v_proj")
    }
    path = tmp_path / "model.safetensors"
    save_file(weights | {"layers.11.self_attn.q_proj.weight": torch.ones(64, 64)}, path)
    size = path.stat().st_size
    mark = compute_fingerprint(Files(paths=[path]))
    known = {"fingerprint": mark, "place": str(path), "bytes": size}
    run.record.environment["inputs"] = {"weights": known}
    norms = updates.read_base_norms(run, found)
    assert norms == {
        f"model.{name.removesuffix('.weight')}": pytest.approx(float(weight.norm()))
        for name, weight in weights.items()
    }
    known["bytes"] = size + 1  # another file lies there now
    assert updates.read_base_norms(run, found) == {}
    known |= {"bytes": size, "fingerprint": "0" * 64}  # of the same size
    assert updates.read_base_norms(run, found) == {}


def test_methods_without_such_an_update_have_no_section(train):
    run, _, _ = train("model=mlp", "task=toy", "method=lora")
    path = run.run_dir / "adapter/adapter_config.json"
    settings = json.loads(path.read_text())
    assert updates.read_kind(run) == "LORA"
    for change in ({"use_dora": True}, {"init_lora_weights": "pissa"}, {"init_weights": False}):
        path.write_text(json.dumps(settings | change))
        assert updates.read_kind(run) is None, change
    shutil.rmtree(path.parent)
    assert updates.read_kind(run) is None


def test_an_altered_adapter_is_refused(train):
    run, _, _ = train("model=mlp", "task=toy", "method=fourierft")
    save_file({"other": torch.tensor([float("nan")])}, run.run_dir / "adapter/x.safetensors")
    with pytest.raises(RecordError, match="non-finite"):
        updates.read_updates(run)


def test_an_entry_is_a_spot_at_its_frequency(tmp_path):
    """The largest is the brightest, and ringed; its mirror image is dim."""
    entries = Entries(
        rows=np.array([0, 3, 40]),
        columns=np.array([10, 20, 60]),
        sizes=np.array([0.5, 2.0, 0.001]),
        periodic=True,
    )
    canvas, places = update_images._draw_stars(entries, (64, 64))
    cell = update_images.SIDE / 64
    y, x = np.unravel_index(canvas.argmax(), canvas.shape)
    assert (y // cell, x // cell) == (32 + 3, 32 + 20)
    mirror = canvas[int((32 - 3 + 0.5) * cell), int((32 - 20 + 0.5) * cell)]
    assert 0.05 < mirror < 0.2 < canvas.max() == pytest.approx(1, abs=0.05)
    assert list(places[1] // cell) == [35, 52]
    assert update_images.describe_entries(entries) == "the strongest 1 of 3 hold 94% of |ΔW|²"


def test_a_single_wave_of_a_large_matrix_is_seen(tmp_path):
    """An image of every second row and column would be black: its frequencies are between."""
    rows, columns = np.ogrid[:1000, :900]
    wave = np.cos(2 * np.pi * (3 * rows / 1000 + 5 * columns / 900))
    panel = update_images._draw_dense(wave, tmp_path / "waves.png")
    drawn = np.array(Image.open(tmp_path / "waves.png"))
    assert drawn.shape == (500, 450)
    bright = {(int(y), int(x)) for y, x in np.argwhere(drawn == 255)}
    assert bright == {((500 + sign * 3) // 2, (450 + sign * 5) // 2) for sign in (1, -1)}
    assert panel["note"].startswith(f"brightest: norm {np.linalg.norm(wave):.2g}")


def test_images_and_words_of_a_page(train, tmp_path):
    run, layers, _ = train(*LANGUAGE, *FOURIER)
    section = update_section.make_section(run, tmp_path / "page")
    titles = [figure["title"] for figure in section["figures"]]
    assert titles == [f"Block {b}, {kind}" for kind in ("q_proj", "v_proj") for b in (0, 2, 4)]
    panels = section["figures"][3]["panels"]
    assert [one["title"] for one in panels] == [
        *("ΔW at the start", "ΔW at the end", "Size of every wave", "Change of every wave"),
    ]
    for one in panels:
        image = np.asarray(Image.open(tmp_path / "page" / one["file"]).convert("RGB"))
        assert image.std() > 5, one
    assert image.shape == (update_images.SIDE, update_images.SIDE, 3)
    assert len(panels[2]["rings"]) == update_images.RINGED
    assert "sum of 40 waves" in section["intro"] and "random sizes" in section["intro"]
    assert "|W0| is not known" in section["summary"]
    norms = {one["name"]: one["norm"] for one in section["norms"]}
    assert norms == {
        name: pytest.approx(float(layer.get_delta_weight("default").detach().norm()))
        for name, layer in layers.items()
    }
    norm, change = update_section.draw_norms(section["norms"])
    assert [one.name for one in norm.series] == ["q_proj", "v_proj"] and len(
        norm.series[0].dots
    ) == 5
    assert change.title.startswith("Change by training")


def test_sections_are_kept_until_the_adapter_is_another(train, tmp_path, monkeypatch):
    run, _, _ = train("model=mlp", "task=toy", "method=fourierft")
    made = update_section.make_section(run, tmp_path / "page")
    with monkeypatch.context() as patch:
        patch.delattr(updates, "read_updates")
        assert update_section.make_section(run, tmp_path / "page") == made
    save_file({"x": torch.ones(1)}, run.run_dir / "adapter/more.safetensors")
    assert update_section.read_section(run, tmp_path / "page") is None


def test_a_report_draws_the_newest_and_the_command_any(train, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(update_section, "NEWEST", 1)
    toy = ("model=mlp", "task=toy", "method=fourierft")
    old, _, _ = train(*toy, seed=1)
    new, _, _ = train(*toy, seed=2)
    record = json.loads((new.run_dir / "metrics.json").read_text())
    record["time"]["started"] = "2027-01-01T00:00:00+0000"
    (new.run_dir / "metrics.json").write_text(json.dumps(record))
    outputs, to = tmp_path / "outputs", tmp_path / "site"
    site.write([], run_index.collect(outputs), to, [])
    pages = {seed: site.find_page(to, f"mlp/toy/fourierft/seed={seed}") for seed in (1, 2)}
    assert "layer0-waves.png" in pages[2].read_text()
    shown = re.search("<code>python -m experiments.report (.*)</code>", pages[1].read_text())
    assert main([*shlex.split(html.unescape(shown[1])), "gone"]) == 1
    said = capsys.readouterr()
    assert said.out == f"{pages[1]}\n" and "gone: not the folder of a finished run" in said.err
    assert "layer0-waves.png" in pages[1].read_text()
    site.write([], run_index.collect(outputs), to, [])
    assert "layer0-waves.png" in pages[1].read_text(), "what was drawn stays"
    shutil.rmtree(old.run_dir)
    site.write([], run_index.collect(outputs), to, [])
    assert {path.name for path in (to / "runs").iterdir()} == {pages[2].name, pages[2].stem}


def test_a_network_that_is_gone_costs_the_pictures_alone(train, tmp_path, monkeypatch):
    run, _, _ = train("model=mlp", "task=toy", "method=fourierft")
    path = run.run_dir / "metrics.json"
    path.write_text(path.read_text().replace('"width": 64', '"width": 8'))
    site.write([], run_index.collect(tmp_path / "outputs"), tmp_path / "site", [])
    (page,) = (tmp_path / "site/runs").glob("*.html")
    assert "The update cannot be shown" in page.read_text() and "Configuration" in page.read_text()


def test_large_networks_are_measured_and_drawn_in_part(monkeypatch):
    layers = [
        updates.LayerUpdate(name=f"layers.{block}.{kind}", shape=(4, 4), layer=None)
        for block in range(9)
        for kind in "abcdefg"
    ]
    chosen = update_section.choose_layers(layers)
    assert [one.name for one in chosen] == [f"layers.8.{kind}" for kind in "abcdefg"]
    few = update_section.choose_layers([one for one in layers if one.kind in "ab"])
    assert [one.block for one in few] == [0, 4, 8] * 2
    monkeypatch.setattr(update_section, "CELLS", 4 * 4 * 32)
    assert update_section._thin(layers) == layers[::2]
