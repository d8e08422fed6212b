"""Base models: where the weights come from, how they are built, what the methods may adapt.

Dataclasses only; torch is imported when something is built, so composing and checking a run costs
none of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import ConfigError, DataError, UserError

if TYPE_CHECKING:
    from torch import nn

    from experiments.tasks import Head, Task


@dataclass(kw_only=True)
class Model:
    """A base model.

    `build` returns a network whose forward takes a collated batch and returns a loss and logits.
    """

    name: str
    """Name of the conf/model file; part of the run's path."""
    heads: list[str]
    """Kinds of task head that this model can carry."""
    attention: list[str]
    """Modules that the paper adapts (query and value); what a method's `targets` refers to."""
    head: list[str] = field(default_factory=list)
    """Modules of the task head, trained fully and counted apart."""
    path: str | None = None
    """Local folder with weights and tokenizer (local)."""
    pretrained: bool = True
    """false: full size, random weights, nothing downloaded."""

    def problems(self, task: Task) -> Iterator[str]:
        """Yields every reason why this model cannot serve a task."""
        if task.head.kind not in self.heads:
            offered = ", ".join(map(repr, self.heads))
            yield (
                f"model={self.name}: task={task.name} needs a {task.head.kind!r} head, "
                f"this model offers {offered}"
            )

    def locate(self, offline: bool = False) -> str | None:
        """Folder or repository of the weights, None if there are none to load.

        Raises HubUnavailable within seconds.
        """
        return None

    def processor(self, source: str | None) -> Any:
        """Tokenizer or image processor of the weights at `source`.

        None if the task's data need none.
        """
        return None

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """Builds the network with a fresh head.

        Args:
            head: what the task asks of the model.
            source: where the pretrained weights are (`locate`), None for random weights.
            meta: allocate nothing: shapes only, for counting.
        """
        raise TypeError(
            f"{type(self).__name__} does not say how it is built"
        )  # a schema alone is no model


@dataclass(kw_only=True)
class MLP(Model):
    """The toy of Figure 7: points -> width -> width -> classes, ReLU between.

    `hidden` is the 64 x 64 matrix to adapt.
    """

    width: int
    """Rows and columns of the hidden matrix."""

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """See `Model.build`."""
        import torch

        from experiments.networks import PointClassifier

        with torch.device("meta" if meta else "cpu"):
            return PointClassifier(head.inputs, self.width, head.labels)


@dataclass(kw_only=True)
class Transformer(Model):
    """A Hugging Face architecture.

    Weights from a folder, the cache or the hub, or full-size and random from `sizes`.
    """

    repo: str
    """Hub repository of the pretrained weights."""
    architecture: str
    """`model_type` of transformers."""
    sizes: dict[str, Any]
    """Fields of the architecture's configuration that differ from its defaults."""
    package: str | None = None
    """Python package that carries the weights in its folder `model`, tried before cache and hub."""
    weights_file: str = "model.safetensors"
    """File whose presence in the cache means that the repository was downloaded."""

    def locate(self, offline: bool = False) -> str | None:
        """See `Model.locate`."""
        if not self.pretrained:
            return None
        path = self.path
        if path is None and self.package is not None:
            spec = importlib.util.find_spec(self.package)
            path = str(Path(spec.origin).parent / "model") if spec and spec.origin else None
        elif path is not None and not (Path(path).expanduser() / "config.json").is_file():
            raise DataError(
                f"model.path={path}: no config.json there, so it is no folder of a pretrained model"
            )
        return hub.locate(
            self.repo, path, probe=self.weights_file, option="model.path", offline=offline
        )

    def configuration(self, source: str | None, **head: Any) -> Any:
        """The transformers configuration: read from `source`, or made from `sizes`."""
        from transformers import AutoConfig

        if source is None:
            return AutoConfig.for_model(self.architecture, **self.sizes, **head)
        try:
            found = AutoConfig.from_pretrained(source, **head)
        except (OSError, ValueError, KeyError) as error:
            place = self._place(source)
            raise DataError(f"{place}: config.json cannot be read ({error})") from error
        if found.model_type != self.architecture:
            raise ConfigError(
                f"model.path={self.path}: holds a {found.model_type!r} model, "
                f"model={self.name} is a {self.architecture!r}"
            )
        expected = AutoConfig.for_model(self.architecture, **self.sizes)
        wrong = [
            f"{size}: there {getattr(found, size)}, model={self.name} has {getattr(expected, size)}"
            for size in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
            if getattr(found, size) != getattr(expected, size)
        ]
        if wrong:
            raise ConfigError(f"{self._place(source)}: a model of another size", wrong)
        return found

    def network(self, auto: Any, source: str | None, meta: bool, **head: Any) -> nn.Module:
        """Builds with the given transformers Auto class."""
        import torch
        import transformers

        if meta or source is None:
            with torch.device("meta" if meta else "cpu"):
                return auto.from_config(self.configuration(source, **head), dtype=torch.float32)
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # a fresh head is what we ask for, not news
        transformers.logging.disable_progress_bar()
        try:
            net, found = auto.from_pretrained(
                source,
                config=self.configuration(source, **head),
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
            )
        except UserError:
            raise
        except Exception as error:  # transformers, safetensors and the system raise many kinds
            raise DataError(
                f"{self._place(source)}: the weights cannot be read ({error})"
            ) from error
        finally:
            transformers.logging.set_verbosity(verbosity)
        absent = sorted(
            key for key in found["missing_keys"] if set(self.head).isdisjoint(key.split("."))
        )
        if absent and self.head:  # they would be random, and nothing would say so
            raise DataError(
                f"{self._place(source)}: weights are missing",
                [*absent[:5], *([f"and {len(absent) - 5} more"] if len(absent) > 5 else [])],
            )
        return net

    def _place(self, source: str | None) -> str:
        """Where the weights are, as an error says it."""
        return f"model.path={self.path}" if self.path else f"model {source}"


@dataclass(kw_only=True)
class Encoder(Transformer):
    """RoBERTa or BERT with a sequence classification (or regression) head."""

    def processor(self, source: str | None) -> Any:
        """A tokenizer; without weights one that speaks bytes.

        Full-size rehearsals then need no download.
        """
        from transformers import AutoTokenizer

        if source is not None:
            try:
                return AutoTokenizer.from_pretrained(source)
            except Exception as error:  # a damaged or missing file raises many kinds
                place = self._place(source)
                raise DataError(f"{place}: no tokenizer can be read there ({error})") from error
        from experiments.networks import byte_tokenizer

        return byte_tokenizer(self.sizes.get("max_position_embeddings", 512))

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """See `Model.build`."""
        from transformers import AutoModel, AutoModelForSequenceClassification

        if head.kind == "none":
            return self.network(AutoModel, source, meta)
        problem = "regression" if head.kind == "regression" else "single_label_classification"
        return self.network(
            AutoModelForSequenceClassification,
            source,
            meta,
            num_labels=head.labels,
            problem_type=problem,
        )


@dataclass(kw_only=True)
class CausalLM(Transformer):
    """GPT-2 or LLaMA.

    GPT-2's fused `c_attn` becomes q, k and v projections, so that every method names the same
    targets.
    """

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """See `Model.build`."""
        from transformers import AutoModelForCausalLM

        from experiments.networks import split_attention

        return split_attention(self.network(AutoModelForCausalLM, source, meta))


@dataclass(kw_only=True)
class VisionTransformer(Transformer):
    """ViT; so far counted, not trained."""

    def build(self, head: Head, source: str | None, *, meta: bool = False) -> nn.Module:
        """See `Model.build`."""
        from transformers import AutoModel

        return self.network(AutoModel, source, meta)


MODELS = (MLP, Encoder, CausalLM, VisionTransformer)
