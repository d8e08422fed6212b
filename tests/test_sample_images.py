"""Figure 10: stored images of learnt subjects."""

import numpy as np
import pytest
from PIL import Image
from records import scored

from experiments.config import overrides
from experiments.report.__main__ import main
from experiments.report.comparison import reference, run_index
from experiments.report.pages import registry, sample_images
from experiments.report.render import text
from experiments.results.identity import to_plain

FACTS = reference.load("figure10")


@pytest.fixture(scope="module")
def plain(compose):
    """Function: model and method -> plain configuration."""
    return lambda model, method: to_plain(
        compose([f"model={model}", "task=dreambooth", f"method={method}"])
    )


def drew(root, config, folders, seed=0):
    place = scored(root, config, seed, 100.0)
    for number, folder in enumerate(["subject", *folders]):
        (place / "images" / folder).mkdir(parents=True)
        pixels = np.full((8, 8, 3), 40 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(place / "images" / folder / "00.png")
    return place


def test_a_row_for_each_of_the_papers_prompts(tmp_path, plain):
    prompts = ["a-sks-dog-on-a-blanket", "a-sks-dog-in-a-police-outfit", "a-sks-dog-in-the-snow"]
    drew(tmp_path, plain("sd15", "lora"), prompts)
    drew(tmp_path, plain("sd15", "fourierft"), prompts[1:])
    index = run_index.collect(tmp_path)
    model, found = sample_images.read_samples(FACTS, index)
    assert [one.folder for one in found] == prompts[:2], "in the figure's order"
    assert model == "sd15" and {one.folder: set(one.images) for one in found} == {
        prompts[0]: {"lora"},
        prompts[1]: {"lora", "fourierft"},
    }
    page = registry.build("figure10", index)
    assert "2 of the paper's 8 pairs" in page.summary
    (picture,) = page.pictures
    images = [axes for axes in picture.draw().axes if axes.images]
    assert len(images) == 2 + 3, "two photos, three images"
    assert "run:sd15/dreambooth/lora/seed=0" in set(page.links)


def test_images_without_fine_tuning_are_no_methods(tmp_path, plain):
    untuned = plain("sd15", "fourierft")
    untuned["variant"], untuned["train"]["max_steps"] = "init=zeros", 1
    drew(tmp_path, untuned, ["a-sks-dog-on-a-blanket"])
    plain_run = drew(tmp_path, plain("sd15", "fourierft"), ["a-sks-dog-on-a-blanket"], seed=5)
    (row,) = sample_images.read_samples(FACTS, run_index.collect(tmp_path))[1]
    assert row.images["fourierft"][0].run_dir == plain_run


def test_other_prompts_and_models_are_shown_as_ours(tmp_path, plain):
    drew(tmp_path, plain("sd_tiny", "fourierft"), [f"a-sks-dog-{one}" for one in "abc"])
    index = run_index.collect(tmp_path)
    model, found = sample_images.read_samples(FACTS, index)
    assert model == "sd_tiny" and [one.folder for one in found] == ["a-sks-dog-a", "a-sks-dog-b"]
    page = registry.build("figure10", index)
    assert page.summary.startswith("0 of the paper") and "a-sks-dog-a (ours)" in text.markdown(page)


def test_what_is_not_an_image_is_left_out(tmp_path, plain):
    place = drew(tmp_path, plain("sd_tiny", "lora"), ["a-sks-dog-a"])
    (place / "images/a-sks-dog-a/00.png").write_bytes(b"no image")
    index = run_index.collect(tmp_path)
    assert sample_images.read_samples(FACTS, index)[1] == []
    assert [one.kind for one in index.excluded] == ["damaged"]


def test_the_page_without_runs_and_its_command(tmp_path, capsys):
    to = tmp_path / "report"
    assert main(["figure10", "--outputs", str(tmp_path), "--to", str(to)]) == 0
    assert "8 pairs of subject and prompt" in (to / "figure10.html").read_text()
    words = FACTS["draw"].split(" ", 2)[2]
    given = [word for word in words.split("'") if word.strip()]
    assert overrides.find_problems([*given[0].split(), *given[1:]]) == []
