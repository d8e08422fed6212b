"""Card of an exported adapter: its base model, data, scores, and how it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from experiments.commands.trained_run import TrainedRun
from experiments.methods.fourierft import Basis, FourierFT, Orientation, Scaling
from experiments.methods.peft import Adapter
from experiments.metrics.classification import format_score
from experiments.models.language import FUSED
from experiments.tasks.completions import Completions

AUTO = {
    "classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "images": "AutoModelForImageClassification",
    "language": "AutoModelForCausalLM",
}
"""Class of transformers that loads the base model, by the kind of head."""


def make_card(run: TrainedRun, place: str) -> str:
    """Return the text of README.md, with the hub's metadata.

    Args:
        run: the run.
        place: repository or folder that the adapter is loaded from.
    """
    from huggingface_hub import ModelCardData

    task, method = run.config.task, run.config.method
    data = ModelCardData(
        base_model=get_hub_name(run),
        library_name="peft" if isinstance(method, Adapter) else "transformers",
        tags=[method.name, task.name],
    )
    body = "\n\n".join(_list_paragraphs(run, place))
    return f"---\n{data.to_yaml()}\n---\n\n{body}\n"


def get_hub_name(run: TrainedRun) -> str | None:
    """Return the hub's name of the base model; None if the hub has it not."""
    repo = getattr(run.config.model, "repo", None)
    return repo if repo and "/" in repo else None


def _list_paragraphs(run: TrainedRun, place: str) -> Iterator[str]:
    config, record = run.config, run.record
    name = get_hub_name(run)
    base = f"[{name}](https://huggingface.co/{name})" if name else f"`{config.model.name}`"
    data = _describe_data(config.task)
    yield f"# {config.method.name} on {config.model.name}: {data}"
    parameters = record.parameters
    adapter, in_head = parameters["adapter"], parameters.get("head") or 0
    about = f"{adapter + in_head:,} trained parameters"
    if in_head:
        about += f" ({adapter:,} of `{config.method.name}`, {in_head:,} of the head)"
    origin = f" ({config.model.origin})" if config.model.origin else ""
    yield f"{about}, for {base}{origin}. Trained on {data}, {_describe_rows(record.environment)}."
    yield from _list_scores(record.metrics or {})
    head = config.task.head
    if head.names:
        yield "Classes: " + ", ".join(f"{number} {one}" for number, one in enumerate(head.names))
    if isinstance(config.task, Completions):
        yield _describe_prompts(config.task)
    yield from _list_ways_to_load(run, place)
    recipe = f"recipe {record.run.get('recipe')}, seed {config.seed}"
    yield f"Settings: `metrics.json` ({recipe}). Trained with the experiments of `fourierft`."


def _describe_data(task: Any) -> str:
    own = getattr(task, "data", None)
    repo = getattr(task, "repo", None)
    subset = getattr(task, "subset", None)
    return own or (f"{repo} ({subset})" if subset else repo) or task.name


def _describe_rows(environment: dict[str, Any]) -> str:
    rows = environment.get("rows") or {}
    said = [f"{count:,} rows ({name})" for name, count in rows.items() if isinstance(count, int)]
    held_out = environment.get("held_out")
    if held_out:
        said.append(f"a share of {held_out['share']:g} held out with seed {held_out['seed']}")
    return ", ".join(said) or "rows not recorded"


def _list_scores(metrics: dict[str, Any]) -> Iterator[str]:
    """Yield a table of the scores of the kept epoch."""
    primary = metrics.get("primary") or {}
    if not primary:
        return
    chosen = metrics.get(primary.get("select") or "") or {}
    lines = ["| split | metric | score | 95 % interval |", "|---|---|---|---|"]
    for split, scores in (chosen.get("scores") or {}).items():
        for name, value in scores.items():
            main = (split, name) == (primary.get("split"), primary.get("name"))
            interval = primary.get("interval") if main else None
            shown = " to ".join(map(format_score, interval)) if interval else ""
            lines.append(f"| {split} | {name} | {format_score(value)} | {shown} |")
    epoch = chosen.get("epoch")
    at = f"epoch {epoch:.4g}" if isinstance(epoch, (int, float)) else "one epoch"
    rows = (chosen.get("chosen_on") or primary).get("split")
    rule = f"the best on the {rows} rows" if primary.get("select") == "best" else "the last"
    yield f"Scores at {at}, {rule}:\n\n" + "\n".join(lines)


def _describe_prompts(task: Completions) -> str:
    template = f"`{task.template!r}`, the answer right after it"
    chat = "a user's turn in the tokenizer's chat template (`/v1/chat/completions` of a server)"
    if task.chat_template is None:
        form = f"as {chat} if it has one, else as {template}"
    else:
        form = f"as {chat if task.chat_template else template}"
    return f"Prompts were put {form}: send them in the same form."


def _list_ways_to_load(run: TrainedRun, place: str) -> Iterator[str]:
    config, kind = run.config, run.config.task.head.kind
    fused = getattr(config.model, "architecture", None) in FUSED
    if not isinstance(config.method, Adapter) or kind not in AUTO or fused:
        why = " (GPT-2's q, k and v are split for it)" if fused else ""
        yield (
            f"`python -m experiments.export {place} OUT` writes a model that transformers loads"
            f"{why}."
        )
    else:
        yield f"```python\n{make_snippet(run, place)}\n```"
    yield f"Predict: `python -m experiments.predict {place} --input FILE`."


def make_snippet(run: TrainedRun, place: str) -> str:
    """Return Python that loads base model and adapter."""
    config, head = run.config, run.config.task.head
    auto = AUTO[head.kind]
    base = get_hub_name(run) or f"FOLDER of {config.model.name}"
    arguments = [repr(base)]
    if head.names:
        arguments += [
            f"id2label={dict(enumerate(head.names))!r}",
            f"label2id={ {name: number for number, name in enumerate(head.names)}!r}",
        ]
    elif head.labels:
        arguments.append(f"num_labels={head.labels}")
    asks = isinstance(config.task, Completions)
    classes = f"{auto}, AutoTokenizer" if asks else auto
    lines = ["from peft import PeftModel", f"from transformers import {classes}", ""]
    if isinstance(config.method, FourierFT):
        why = "needed" if needs_package(config.method) else "optional: faster; PEFT alone loads it"
        lines.insert(0, f"import fourierft  # {why}")
    lines.append(f"base = {auto}.from_pretrained({', '.join(arguments)})")
    lines.append(f"net = PeftModel.from_pretrained(base, {place!r})")
    if asks:
        lines += ["", *_list_call(config.task, base)]
    return "\n".join(lines)


def _list_call(task: Completions, base: str) -> Iterator[str]:
    """Yield lines of Python that answer a prompt, put as in training."""
    yield f"tokenizer = AutoTokenizer.from_pretrained({base!r})"
    yield 'prompt = "..."'
    plain = f"text = {task.template!r}.format(prompt=prompt)"
    chat = [
        'asked = [{"role": "user", "content": prompt}]',
        "text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)",
    ]
    if task.chat_template is None:
        yield from ("if tokenizer.chat_template is None:", f"    {plain}", "else:")
        yield from (f"    {line}" for line in chat)
    else:
        yield from chat if task.chat_template else [plain]
    yield "first = tokenizer.bos_token  # a chat template may have written it"
    yield "begun = first is not None and text.startswith(first)"
    yield 'given = tokenizer(text, add_special_tokens=not begun, return_tensors="pt")'
    yield f"made = net.generate(**given, max_new_tokens={task.max_new_tokens}, do_sample=False)"
    yield 'answer = made[0, given["input_ids"].shape[1] :]'
    yield "print(tokenizer.decode(answer, skip_special_tokens=True))"


def needs_package(method: FourierFT) -> bool:
    """Return True for adapters that PEFT's own FourierFT does not know."""
    return (
        method.basis is not Basis.fourier
        or method.frequency_bias.center is not None
        or method.scaling is Scaling.norm
        or method.orientation is Orientation.algorithm1
        or method.entry_rows is not None
    )
