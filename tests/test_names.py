"""Names as pages write them."""

from experiments.report.comparison import names


def test_names_of_tasks_and_metrics():
    assert [*map(names.name_task, ("sst2", "cifar100", "reviews"))] == [
        *("SST-2", "CIFAR-100", "reviews")
    ]
    assert names.name_metric("accuracy", 100) == "Accuracy (%)"
    assert names.name_metric("matthews", 100) == "Matthews x 100"
    assert names.name_metric("cross_entropy") == "Cross entropy"


def test_every_option_of_conf_that_the_paper_has_is_named():
    assert names.name_method("fourierft") == "FourierFT" and names.name_method("mine") == "mine"
    assert names.name_model("roberta_large") == "RoBERTa-large"
