"""Groups of seeds, and of the subjects whose mean a cell shows."""

import pytest
from records import scored

from experiments.config import sweep
from experiments.report.comparison import cells, reference, run_index, seed_groups
from experiments.report.pages import registry
from experiments.report.render import text
from experiments.results.identity import to_plain

SUBJECTS = {"dog": 200.0, "bear_plushie": 250.0, "colorful_sneaker": 300.0}


def draw_subjects(root, compose, method="fourierft", *, subjects=SUBJECTS, seeds=(0,), more=()):
    """Records of Table 13 whose FID is that of the subject plus the seed."""
    for subject in subjects:
        choice = ["model=sd15", "task=dreambooth", f"method={method}", f"task.subject={subject}"]
        config = to_plain(compose([*choice, *more]))
        for seed in seeds:
            place = root / f"sd15/dreambooth/{method}/{config['variant'] or '.'}/seed={seed}"
            scored(root, config, seed, SUBJECTS[subject] + seed, place=place, data=subject)
            record = (place / "metrics.json").read_text()
            record = record.replace('"accuracy"', '"fid"').replace('"validation"', '"subject"')
            (place / "metrics.json").write_text(record)


def show(root, label):
    """The cell of Table 13 whose row has this label."""
    found = cells.fill(reference.load("table13"), run_index.collect(root))
    return next(cell for cell in found if cell.row.label == label)


def test_a_cell_is_the_mean_of_all_subjects(tmp_path, compose):
    draw_subjects(tmp_path, compose, seeds=(0, 2))
    cell = show(tmp_path, "FourierFT")
    assert cell.ours["last"].values == {0: 250.0, 2: 252.0} and not cell.others
    assert cell.ours["last"].parts["dog, seed 0"] == 200.0
    reason = cell.judgements["last"].reason
    assert "subset" not in reason and "of the 3 subjects" not in reason
    page = text.markdown(registry.build("table13", run_index.collect(tmp_path)))
    assert "mean of 3 subjects (bear_plushie, colorful_sneaker, dog)" in page
    assert "bear_plushie, seed 2: 252.0" in page and "| 251.0" in page


def test_seeds_are_in_the_order_of_their_numbers(tmp_path, compose):
    draw_subjects(tmp_path, compose, subjects=["dog"], seeds=(10, 9, 100))
    [setting] = seed_groups.group_seeds(run_index.collect(tmp_path).runs)
    assert list(setting.runs) == [9, 10, 100]


def test_fewer_subjects_are_said(tmp_path, compose):
    draw_subjects(tmp_path, compose, subjects=["dog", "bear_plushie"])
    cell = show(tmp_path, "FourierFT")
    assert cell.ours["last"].centre == 225.0
    assert "2 of the 3 subjects of Figure 10" in cell.judgements["last"].reason


@pytest.mark.parametrize(("steps", "cut"), [(500, False), (2, True)])
def test_the_steps_of_the_recipe_are_no_subset(tmp_path, compose, steps, cut):
    draw_subjects(tmp_path, compose, more=[f"train.max_steps={steps}"])
    reason = show(tmp_path, "FourierFT").judgements["last"].reason
    assert ("a subset (max_steps=2)" in reason) is cut and ("subset" in reason) is cut


def test_the_model_without_fine_tuning_has_a_command(tmp_path, compose):
    """Its runs fill their row, not FourierFT's, and nothing is a deviation there."""
    found = list(sweep.compose_cells("table13_untuned"))
    assert [cell.config.task.subject for cell in found] == list(SUBJECTS)
    more = ["method.init=zeros", "train.learning_rate=1e-30", "train.max_steps=1"]
    draw_subjects(tmp_path, compose, more=more)
    assert show(tmp_path, "FourierFT").setting is None
    cell = show(tmp_path, "without fine-tuning")
    assert cell.ours["last"].centre == 250.0
    assert cell.incomparable_reasons == []
    assert cell.judgements["last"].reason == "the paper does not say over how many runs"
