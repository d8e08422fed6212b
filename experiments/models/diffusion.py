"""Text-to-image diffusion: Stable Diffusion 1.5, or a tiny one with random weights."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import hub
from experiments.device import select_device
from experiments.errors import ConfigError, DataError, UserError
from experiments.hub.fingerprints import (
    PIPELINE,
    PIPELINE_WEIGHTS,
    Files,
    compute_fingerprint,
    find_files,
    find_weights,
)
from experiments.models.model import Model

if TYPE_CHECKING:
    from torch import nn

    from experiments.models.head import Head
    from experiments.models.latent_diffusion import LatentSpace

FILES = (PIPELINE, "scheduler/*", "tokenizer/*", "*/config.json", *PIPELINE_WEIGHTS)
"""Files that are read of a repository."""
VOCABULARY = 49408
"""Tokens of CLIP: the default of its text encoder's configuration."""
WEIGHTS_SEED = 0
"""Seed of random weights: they stand for downloaded ones, so every run has the same."""


@dataclass(kw_only=True)
class Diffusion(Model):
    """Latent diffusion (Rombach et al. 2022): the U-Net is adapted, the autoencoder never.

    Weights from a folder, the cache or the hub, or random from `sizes`.
    """

    repo: str
    """Hub repository in the layout of diffusers."""
    sizes: dict[str, dict[str, Any]]
    """Configuration of `unet`, `vae`, `text_encoder` (fields that differ from the defaults) and
    `scheduler`."""
    train_text_encoder: bool = False
    """Train the text encoder too; a method that adapts modules then needs `attention` to name its
    q_proj, k_proj, v_proj and out_proj."""

    @property
    def factor(self) -> int:
        """See `Model.factor`: pixels per latent cell, in each direction."""
        return 2 ** (len(self.sizes["vae"]["block_out_channels"]) - 1)

    def locate(self, offline: bool = False) -> str | None:
        """See `Model.locate`."""
        _require_diffusers()
        if not self.pretrained:
            return None
        if self.path is not None and not (Path(self.path).expanduser() / PIPELINE).is_file():
            raise DataError(f"model.path={self.path}: not a diffusion model, {PIPELINE} not found")
        return hub.locate(
            self.repo, self.path, probe=PIPELINE, option="model.path", offline=offline
        )

    def downloads(self) -> list[hub.Download]:
        """See `Model.downloads`."""
        if not self.pretrained or self.path is not None:
            return []
        return [hub.Download(repo=self.repo, patterns=FILES)]

    def inputs(self) -> dict[str, Files]:
        """See `Model.inputs`."""
        folder = hub.locate_local(self.repo, self.path) if self.pretrained else None
        if folder is None or not find_weights(folder).paths:
            return {}
        settings = [PIPELINE, "scheduler/*", "*/config.json"]
        return {
            "weights": find_weights(folder),
            "model settings": find_files(folder, settings),
            "tokenizer": find_files(folder, ["tokenizer/*"]),
        }

    def processor(self, source: str | None, *, device: str = "auto") -> LatentSpace:
        """Return autoencoder, text encoder and tokenizer around the network."""
        from transformers import CLIPTokenizer

        from experiments.models.byte_tokenizers import make_clip_byte_tokenizer
        from experiments.models.latent_diffusion import LatentSpace

        folder = self._folder(source)
        if folder is None:
            sizes = json.dumps([self.sizes, WEIGHTS_SEED], sort_keys=True)
            name = f"random {hashlib.sha256(sizes.encode()).hexdigest()}"
            text = self.sizes["text_encoder"]
            tokenizer = make_clip_byte_tokenizer(text.get("max_position_embeddings", 77))
        else:
            name = compute_fingerprint(find_weights(folder))
            tokenizer = self._read("tokenizer", CLIPTokenizer, folder)
            if len(tokenizer) != self.sizes["text_encoder"].get("vocab_size", VOCABULARY):
                raise DataError(f"{folder / 'tokenizer'}: cannot be read, or another vocabulary")
        return LatentSpace(
            tokenizer=tokenizer,
            text_encoder=self._part("text_encoder", folder),
            vae=self._part("vae", folder),
            noise=self._noise(folder),
            base=lambda: self._part("unet", folder),
            name=name,
            trains_text_encoder=self.train_text_encoder,
            device=select_device(device),
        )

    def build(
        self, head: Head, source: str | None, *, meta: bool = False, device: str = "auto"
    ) -> nn.Module:
        """See `Model.build`: the U-Net, and the text encoder if it is trained."""
        _require_diffusers()
        from experiments.models.latent_diffusion import Denoiser

        folder = None if meta else self._folder(source)
        text_encoder = None
        if self.train_text_encoder:
            text_encoder = self._part("text_encoder", folder, meta)
        return Denoiser(self._part("unet", folder, meta), self._noise(folder), text_encoder)

    def plain(self, net: nn.Module, source: str | None) -> Any:
        """See `Model.plain`: a pipeline of diffusers."""
        return self.processor(source).pipeline(net.unet, net.text_encoder)

    def _folder(self, source: str | None) -> Path | None:
        """Return the folder of the weights, downloaded if necessary without unused files."""
        if source is None or Path(source).is_dir():
            return None if source is None else Path(source)
        return hub.fetch(hub.Download(repo=source, patterns=FILES))

    def _noise(self, folder: Path | None) -> Any:
        """Return the scheduler that the base model was trained with."""
        from diffusers import DDPMScheduler

        if folder is None:
            return DDPMScheduler(**self.sizes["scheduler"])
        return self._read("scheduler", DDPMScheduler, folder)

    def _part(self, part: str, folder: Path | None, meta: bool = False) -> nn.Module:
        """Build one network of the pipeline in float32, from a folder or with random weights."""
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel
        from transformers import CLIPTextConfig, CLIPTextModel

        kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}.get(part, CLIPTextModel)
        sizes = self.sizes[part]
        if folder is None:
            with torch.random.fork_rng(devices=[]), torch.device("meta" if meta else "cpu"):
                torch.manual_seed(WEIGHTS_SEED)
                return kind(CLIPTextConfig(**sizes)) if kind is CLIPTextModel else kind(**sizes)
        self._compare(part, folder)
        options = {"use_safetensors": True, "output_loading_info": True}
        option = "dtype" if kind is CLIPTextModel else "torch_dtype"
        net, found = self._read(part, kind, folder, **options, **{option: torch.float32})
        if found["missing_keys"]:  # they would be random, and nothing would say so
            names = sorted(found["missing_keys"])
            rest = [f"and {len(names) - 5} more"] if len(names) > 5 else []
            raise DataError(f"{folder / part}: weights are missing", [*names[:5], *rest])
        return net

    def _compare(self, part: str, folder: Path) -> None:
        """Raise ConfigError if the sizes of the folder's network differ from this model's."""
        path = folder / part / "config.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
        wrong = [
            f"{part} {name}: found {found[name]}, expected {size} (model={self.name})"
            for name, size in self.sizes[part].items()
            if found.get(name, size) != size and name != "sample_size"  # not of the weights
        ]
        if wrong:
            raise ConfigError(f"{folder}: a model of another size", wrong)

    def _read(self, part: str, kind: Any, folder: Path, **options: Any) -> Any:
        """Load a part of the pipeline with its library; DataError names what cannot be read."""
        try:
            return kind.from_pretrained(folder, subfolder=part, **options)
        except UserError:
            raise
        except Exception as error:  # diffusers, transformers and safetensors raise many kinds
            raise DataError(f"{folder / part}: cannot be read ({error})") from error


def _require_diffusers() -> None:
    if importlib.util.find_spec("diffusers") is None:
        raise UserError(
            "diffusion models need the package diffusers, which is not installed",
            ["install the extra: pip install -c constraints.txt -e '.[diffusion]'"],
        )
