"""DreamBooth: what is read of the photos, what a run leaves, and what interrupts it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from processes import train

from experiments import files
from experiments.config.compose import CONF
from experiments.errors import ConfigError, DataError
from experiments.metrics import fid
from experiments.tasks import image_files
from experiments.tasks.dreambooth_data import Pairs, collate, read_listing, read_subject

ROOT = Path(__file__).parent.parent
CHOICE = ["model=sd_tiny", "task=dreambooth"]
QUICK = [
    *("task.resolution=32", "task.class_images=2", "task.steps=2", "task.images_per_prompt=2"),
    'task.prompts=["a {token} {class_name}","a {token} {class_name} on the beach"]',
]


@pytest.fixture
def photos(data_folder):
    return data_folder / "dreambooth"


@pytest.fixture
def quick(compose, photos, tmp_path):
    """A run on five photos of a dog, 32 pixels wide."""
    return lambda *more: compose(
        [*CHOICE, *QUICK, f"task.path={photos}", f"output={tmp_path}", *more]
    )


# What is read


def test_listing(photos):
    listing = read_listing(photos / "prompts_and_classes.txt")
    assert (len(listing.classes), len(listing.objects), len(listing.live)) == (30, 25, 25)
    assert listing.classes["bear_plushie"] == "stuffed animal"
    assert "a {token} {class_name} in a police outfit" in listing.live
    assert "a cube shaped {token} {class_name}" == listing.objects[-1]
    assert not any("outfit" in prompt for prompt in listing.objects)


@pytest.mark.parametrize(
    ("name", "class_name", "prompt"),
    [("dog", "dog", "in a chef outfit"), ("vase", "vase", "floating on top of water")],
)
def test_subject_decides_class_and_prompts(photos, name, class_name, prompt):
    found = read_subject(photos, name, None, None)
    assert found.class_name == class_name and found.folder == photos / name
    assert f"a {{token}} {{class_name}} {prompt}" in found.prompts


def test_layout_of_the_repository(photos, tmp_path):
    """The data lie in its subfolder `dataset`."""
    (tmp_path / "dataset").symlink_to(photos)
    assert read_subject(tmp_path, "teapot", None, None).class_name == "teapot"


def test_words_on_the_command_line_need_no_listing(photos, tmp_path):
    shutil.copytree(photos / "dog", tmp_path / "rex")
    with pytest.raises(DataError, match="prompts_and_classes.txt: cannot be read"):
        read_subject(tmp_path, "rex", None, None)
    assert read_subject(tmp_path, "rex", "dog", ["a {token}"]).prompts == ["a {token}"]
    shutil.copy(photos / "prompts_and_classes.txt", tmp_path)
    with pytest.raises(DataError, match="does not say what it is; set task.class_name"):
        read_subject(tmp_path, "rex", None, None)


def test_photos_that_are_not_there(photos, tmp_path):
    with pytest.raises(DataError, match="task.subject=cat: no such folder .*dog, red_cartoon"):
        read_subject(photos, "cat", None, None)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="cat: holds no image"):
        read_subject(tmp_path, "cat", "cat", ["x"])
    (tmp_path / "prompts_and_classes.txt").write_text("nothing of the kind")
    with pytest.raises(DataError, match="without a table of classes\n.*object.*\n.*live"):
        read_listing(tmp_path / "prompts_and_classes.txt")


def test_photos_that_cannot_be_read_are_all_named(photos, tmp_path):
    shutil.copy(photos / "dog/00.jpg", tmp_path)
    (tmp_path / "01.jpg").write_bytes((photos / "dog/01.jpg").read_bytes()[:4000])
    (tmp_path / "02.png").write_text("not an image")
    with pytest.raises(DataError) as caught:
        image_files.read_folder(tmp_path)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["01.jpg", "02.png"]


def test_photos_in_subfolders_and_of_any_ending_are_read(tmp_path, caplog):
    (tmp_path / "more").mkdir()
    photo = Image.new("RGB", (20, 20), "red")
    for name, kind in (
        ("0.JPG", "JPEG"),
        ("1.jfif", "JPEG"),
        ("more/2.avif", "AVIF"),
        ("3", "PNG"),
    ):
        photo.save(tmp_path / name, kind)
    for name in ("._0.JPG", ".DS_Store", "4.heic", "notes.txt"):
        (tmp_path / name).write_text("not an image")
    assert len(image_files.read_folder(tmp_path)) == 4
    assert caplog.messages == [
        f"{tmp_path}: 2 files are not used, PIL reads no image there: .heic 1, .txt 1"
    ]


def test_photos_are_cut_to_their_middle_and_turned_as_held(tmp_path):
    image = Image.new("RGB", (60, 20), "red")
    image.paste("blue", (12, 0, 48, 20))  # the filter reaches a little beyond the square
    assert image_files.crop_square(image, 8).getcolors() == [(64, (0, 0, 255))]
    held = Image.Exif()
    held[0x0112] = 6  # the camera was turned
    image.save(tmp_path / "turned.jpg", exif=held)
    assert image_files.read(tmp_path / "turned.jpg").size == (20, 60)


def test_locating_looks_for_the_subject(compose, photos):
    with pytest.raises(DataError, match="task.subject=cat"):
        compose([*CHOICE, f"task.path={photos}", "task.subject=cat"]).task.locate()
    assert compose([*CHOICE, f"task.path={photos}"]).task.locate() == str(photos)


# Settings


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("resolution", 66, "task.resolution=66: must be a multiple of 4"),
        ("resolution", 0, "task.resolution=0: must be at least 1"),
        ("steps", 0, "task.steps=0: must be from 1 to 1000"),
        ("class_images", 0, "task.class_images=0: must be at least 1 with task.prior_weight=1"),
        ("prior_weight", -1.0, "task.prior_weight=-1.0: must not be negative"),
        ("guidance", float("nan"), "task.guidance=nan: must not be negative"),
        ("metrics", ["accuracy"], "allowed: fid, frechet_pixels"),
        ("metrics", [], "must name at least one"),
        ("subject", "../dog", "task.subject='../dog': must be a word"),
        ("class_prompt", "a {name}", "wrong braces (allowed: {token}, {class_name})"),
        ("prompts", ["a dog", "A dog"], "must be different prompts"),
        ("prompts", [], "must be different prompts, at least one"),
    ],
)
def test_settings_are_checked(key, value, words, compose):
    job = compose(CHOICE)
    assert list(job.problems()) == []
    setattr(job.task, key, value)
    assert any(words in problem for problem in job.problems())


def test_no_epoch_is_chosen_and_there_is_no_text(compose):
    with pytest.raises(ConfigError, match="chooses no epoch (.|\n)*has no text|has no text"):
        compose([*CHOICE, "train.select=best", "train.group_by_length=true"])


def test_without_class_images(compose):
    assert compose([*CHOICE, "task.class_images=0", "task.prior_weight=0"]).task.prior_weight == 0


def test_local_keys_do_not_change_what_a_run_is(compose):
    run = compose([*CHOICE, "task.extractor=x.safetensors", "task.class_path=y", "task.path=z"])
    assert run.variant == ""


def test_extractor_is_looked_at_before_anything_is_trained(compose, tmp_path):
    with pytest.raises(DataError, match="no weights can be read there"):
        compose([*CHOICE, f"task.extractor={tmp_path}/none.safetensors"]).task.check()


RECIPES = sorted((CONF / "recipe").glob("*/*_sd*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipes(path, compose):
    method, model = path.stem.split("_", 1)
    source = path.parent.name
    missing = ["method.alpha=1"] if path.stem == "fourierft_sd15" and source == "authors" else []
    run = compose(
        [f"model={model}", "task=dreambooth", f"method={method}", f"source={source}"] + missing
    )
    assert (run.recipe, run.train.select.value) == (source, "last")
    if model == "sd15":
        said = " ".join(path.read_text().replace("#", "").split())
        assert ("not measured" if source == "ours" else "is not shown") in said
        assert run.train.max_steps == 500 and run.train.schedule.value == "constant"
    if source == "authors":
        assert (run.train.batch_size, run.train.accumulation) == (10, 2)
        assert run.train.learning_rate == 1e-4


def test_reference_says_what_the_facts_say():
    facts = yaml.safe_load((ROOT / "experiments/reference/table13.yaml").read_text())
    assert [row["fid"] for row in facts["rows"]] == [237.8, 261.7, 221.6, 245.2, 244.9]
    assert facts["rows"][4]["counted"] == 128 * 1500
    assert round(0.19 / 12.4, 3) == 0.015 and "6.1 %" in facts["misprints"][0]


# Rows


def entry(number, label):
    return {"mean": torch.full((1, 4, 2, 2), float(number)), "labels": torch.tensor([label])}


def test_a_row_is_a_photo_and_a_class_image():
    own, others = [entry(n, 0) for n in range(2)], [entry(10 + n, 1) for n in range(3)]
    rows = Pairs([], own, others, None)
    assert (
        len(rows) == 3 and len(Pairs([], own, others, 2)) == 2 and len(Pairs([], own, [], 9)) == 2
    )
    batch = collate([rows[number] for number in range(3)])
    assert batch["mean"][:, 0, 0, 0].tolist() == [0, 10, 1, 11, 0, 12]
    assert batch["labels"].tolist() == [0, 1, 0, 1, 0, 1]


def test_slugs_and_files(tmp_path):
    assert image_files.make_slug("a sks dog, on the Beach!") == "a-sks-dog-on-the-beach"
    image_files.save(Image.new("RGB", (4, 4)), tmp_path / "x/00.png", prompt="größer", seed="3")
    with Image.open(tmp_path / "x/00.png") as image:
        assert image.text == {"prompt": "größer", "seed": "3"}
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["00.png"]


def test_grid_has_a_row_per_prompt_and_the_photos_in_turn():
    colours = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    sheet = image_files.draw_grid(
        [("one", colours), ("two words " * 9, colours[:1])], colours[:1], 40
    )
    pixels = np.asarray(sheet)
    assert pixels[46, 20].tolist() == pixels[92, 20].tolist() == [255, 0, 0]  # photo, photo
    assert pixels[46, -20].tolist() == [0, 0, 255]  # the third image of the first row
    assert pixels[92, -20].tolist() == [255, 255, 255]


# Runs


def folder_of(root):
    return next(root.rglob("metrics.json")).parent


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fourierft", "lora", "full"])
def test_a_run_learns_draws_and_is_measured(method, quick, tmp_path):
    from experiments.results.history import read_history
    from experiments.run.build import build_network
    from experiments.run.main import run

    job = quick(f"method={method}", "train.epochs=12", "train.eval_every=4")
    record = run(job)
    place = folder_of(tmp_path)
    last = record.metrics["last"]
    assert record.metrics["primary"]["name"] == "frechet_pixels"
    assert record.metrics["best"] is record.metrics["heldout"] is None
    assert last["measured_with"]["drawn"] == 4 and last["measured_with"]["real"] == 5
    assert record.environment["rows"] == {"train": 5, "scored photos": 20, "asked dog": 4}
    images = sorted(path.relative_to(place / "images") for path in place.rglob("images/*/*.png"))
    assert len(images) == 4 + 5 and (place / "images/grid.png").exists()

    # At fixed noise the loss has fallen from that of the untouched (or just adapted) network.
    data = job.task.load(job.model.processor(None), str(job.task.path))
    rows = data.collate(list(data.evaluations["photos"]))

    def loss(net):
        with torch.no_grad():
            return job.task.score(net.eval()(**rows)["logits"].numpy(), None)["denoising_loss"]

    name = "photos/denoising_loss"
    curve = [line[name] for line in read_history(place) if name in line]
    assert loss(build_network(job, None)) > curve[0] > curve[-1]
    assert last["scores"]["photos"]["denoising_loss"] == pytest.approx(curve[-1])

    # What was saved is what was scored.
    net = job.model.build(job.task.head, None)
    if method == "full":
        from safetensors.torch import load_file

        net.load_state_dict(load_file(place / "adapter/trained.safetensors"))
    else:
        from peft import PeftModel

        net = PeftModel.from_pretrained(net, place / "adapter")
    assert loss(net) == pytest.approx(curve[-1], rel=1e-5)


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_drawing_goes_on_where_it_stopped(quick, tmp_path, monkeypatch):
    """Updates are built once a layer for all images, and an interruption leaves no trace."""
    import experiments.models.latent_diffusion
    from experiments.run.build import build_network
    from fourierft.engine import weight_cache
    from fourierft.layer import adapted_layers

    made, original = [], weight_cache.effective_weight
    monkeypatch.setattr(
        weight_cache, "effective_weight", lambda *args: made.append(1) or original(*args)
    )
    job = quick()
    space = job.model.processor(None)
    data = job.task.load(space, str(job.task.path))
    net = build_network(job, None).train()
    for layer in adapted_layers(net).values():  # as on a GPU, where nothing is kept between calls
        layer.engine = layer.engine._replace(memory="save")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiments.models.latent_diffusion, "generate_image", interrupted)
        job.task.generate(net, space, data, tmp_path, 3)
    assert net.training and not made
    job.task.generate(net, space, data, tmp_path, 3)
    assert len(made) == len(adapted_layers(net)) > 0
    paths = sorted((tmp_path / "images").rglob("0*.png"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    drawn = [path for path in paths if path.parent.name != "subject"]
    assert len(drawn) == 4 and len({before[path][0] for path in drawn}) == 4
    drawn[2].unlink()
    job.task.generate(net, space, data, tmp_path, 3)
    for path in drawn:
        assert path.read_bytes() == before[path][0]
        assert (path.stat().st_mtime_ns == before[path][1]) == (path != drawn[2])
    again = data.__class__(**{**vars(data), "prompts": {"dog": data.prompts["dog"][:1]}})
    (tmp_path / "other").mkdir()
    job.task.generate(net, space, again, tmp_path / "other", 4)
    name = drawn[0].relative_to(tmp_path)
    assert (tmp_path / "other" / name).read_bytes() != drawn[0].read_bytes(), "another seed"


@pytest.mark.slow
def test_class_images_are_drawn_once_or_given(quick, monkeypatch, tmp_path):
    import experiments.models.latent_diffusion

    job = quick()
    space = job.model.processor(None)
    first = job.task._class_images(space, "a photo of a dog")
    for path in files.get_cache_folder("class_images").rglob("*.png"):
        path.write_bytes(path.read_bytes()[:60])  # drawn again, the same
    assert [one.tobytes() for one in job.task._class_images(space, "a photo of a dog")] == [
        one.tobytes() for one in first
    ]
    assert len(first) == 2 and first[0].size == (32, 32) and first[0] != first[1]
    monkeypatch.setattr(
        experiments.models.latent_diffusion, "generate_image", None
    )  # must not be needed
    again = job.task._class_images(space, "a photo of a dog")
    assert [image.tobytes() for image in again] == [image.tobytes() for image in first]

    given = quick(f"task.class_path={job.task.path}/vase")
    plain = given.task.load(space, str(job.task.path))
    assert len(plain.train) == 6 and plain.train[5]["labels"].tolist() == [0, 1]
    alone = quick("task.prior_weight=0").task.load(space, str(job.task.path))
    assert len(alone.train) == 5 and alone.train[4]["labels"].tolist() == [0]
    assert plain.fingerprint != alone.fingerprint


@pytest.fixture
def drawn(photos, tmp_path, monkeypatch):
    """A run folder whose drawings are the photos, and what is said of it."""
    (tmp_path / "images").mkdir()
    for number, path in enumerate(sorted((photos / "dog").glob("*.jpg"))):
        image = image_files.crop_square(image_files.read(path), 16)
        image_files.save(image, tmp_path / f"images/subject/{number:02d}.png")
        image_files.save(image, tmp_path / f"images/a-dog/{number:02d}.png")
    said = []
    warn = "experiments.tasks.dreambooth.log.warning"
    monkeypatch.setattr(warn, lambda text, *values: said.append(text % values))
    return tmp_path, said


def test_measuring_needs_the_files_alone(drawn, compose, monkeypatch):
    """FID without Inception's weights is not a number, and the log says how to get one."""
    place, said = drawn
    task = compose([*CHOICE, "task.metrics=[fid,frechet_pixels]"]).task
    found = task.evaluate_outputs(place)
    assert list(found.scores["dog"]) == ["fid", "frechet_pixels"]
    assert np.isnan(found.scores["dog"]["fid"]) and "fid is not measured" in said[0]
    assert found.scores["dog"]["frechet_pixels"] == pytest.approx(0, abs=1e-12)
    assert "fid" not in found.details and found.details["drawn"] == found.details["real"] == 5
    # 24 million parameters less
    monkeypatch.setattr(fid, "InceptionFeatures", lambda path, device: fid.PixelFeatures())
    task.extractor = "inception.safetensors"
    assert task.evaluate_outputs(place).scores["dog"]["fid"] == pytest.approx(0, abs=1e-12)


def test_a_single_drawing_costs_the_number_and_not_the_run(drawn, compose):
    place, said = drawn
    for path in sorted((place / "images/a-dog").iterdir())[1:]:
        path.unlink()
    assert np.isnan(compose(CHOICE).task.evaluate_outputs(place).scores["dog"]["frechet_pixels"])
    assert said == ["1 drawn, 5 real images: no distance of so few"]


@pytest.mark.slow
def test_a_killed_run_resumes_and_ends_bit_identical(tmp_path, photos):
    """SIGKILL after some checkpoints: noise, steps and latents go on as in an uninterrupted run."""
    words = [*CHOICE, *QUICK, f"task.path={photos}", "train.epochs=10", "train.eval_every=1"]

    def start(root):
        return train(*words, "train.device=cpu", f"output={root}")

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(whole)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    start(killed).kill_when(lambda: len(list(killed.rglob("predictions/*.npz"))) >= 4)
    assert not list(killed.rglob("metrics.json"))
    process = start(killed)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0 and "resuming from step" in output, output

    one, two = folder_of(whole), folder_of(killed)
    records = [json.loads((place / "metrics.json").read_text()) for place in (one, two)]
    assert records[0]["metrics"] == records[1]["metrics"]
    assert records[1]["time"]["resumed_from"] >= 3
    for part in ("predictions", "adapter", "images"):
        names = [
            sorted(str(path.relative_to(place)) for path in (place / part).rglob("*.*"))
            for place in (one, two)
        ]
        assert names[0] == names[1]
        for name in names[0]:
            if "README" not in name:
                assert (one / name).read_bytes() == (two / name).read_bytes(), name
