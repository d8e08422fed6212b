"""Latent diffusion as a network that returns its loss, and the models around it.

The autoencoder and, unless it is trained, the text encoder are not part of the network: images and
prompts go through them once, before training, and sampling uses them again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from PIL import Image


class Denoiser(nn.Module):
    """A text-conditioned U-Net and its loss: DreamBooth's with prior preservation.

    Args:
        unet: diffusers' conditional U-Net.
        noise: diffusers' DDPM scheduler of the base model: the noise of each step, and the target
            (noise or velocity).
        text_encoder: CLIP's, if it is trained too; batches then hold `tokens`, not `states`.
    """

    def __init__(self, unet: nn.Module, noise: Any, text_encoder: nn.Module | None = None):
        super().__init__()
        self.unet, self.text_encoder, self.noise = unet, text_encoder, noise

    def forward(
        self,
        mean: torch.Tensor,
        deviation: torch.Tensor,
        labels: torch.Tensor,
        weights: torch.Tensor,
        states: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
        steps: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Compute the loss of a batch of B latents.

        A latent x = mean + deviation * standard normal is sampled as by the autoencoder, anew for
        every use of a row, as are noise and step, from torch's global generator, which a
        checkpoint restores.

        Args:
            mean: (B, 4, h, w) of the latent's distribution, scaled.
            deviation: (B, 4, h, w).
            labels: (B,) 0 for a photo of the subject, 1 for an image of its class.
            weights: (B,) weight of the row's error: 1, or the prior weight.
            states: (B, T, d) of the prompt, from the frozen text encoder.
            tokens: (B, T) of the prompt.
            noise: (B, 4, h, w) and
            steps: (B,) fixed ones, for evaluation: the latent is then its mean.

        Returns:
            `loss`, see `prior_preservation_loss`, and `logits` (B,): each row's mean squared error.
        """
        latents = mean
        if noise is None:
            latents = mean + deviation * torch.randn_like(deviation)
            noise = torch.randn_like(mean)
            last = self.noise.config.num_train_timesteps
            steps = torch.randint(last, (len(mean),), device=mean.device)
        if states is None:
            assert self.text_encoder is not None  # it is trained too
            states = self.text_encoder(tokens)[0]
        noisy = self.noise.add_noise(latents, noise, steps)
        predicted = self.unet(noisy, steps, encoder_hidden_states=states).sample
        if self.noise.config.prediction_type == "v_prediction":
            target = self.noise.get_velocity(latents, noise, steps)
        else:
            target = noise
        errors = (predicted.float() - target.float()).pow(2).mean((1, 2, 3))  # (B,)
        return {"loss": prior_preservation_loss(errors, labels, weights), "logits": errors}

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """Recompute activations in the backward pass; the Trainer calls this."""
        self.unet.enable_gradient_checkpointing()
        if self.text_encoder is not None:
            self.text_encoder.gradient_checkpointing_enable()


def prior_preservation_loss(
    errors: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    """Return the mean error of the photos + lambda * mean error of as many class images.

    DreamBooth (Ruiz et al. 2023, arXiv 2208.12242, Eq. 2) with the weights w_t left out, as is
    usual where the network predicts noise; lambda is the class images' weight.

    Args:
        errors: (B,).
        labels: (B,) 0 for photos, 1 for class images.
        weights: (B,).
    """
    return (weights * errors).sum() / (labels == 0).sum()


@dataclass(kw_only=True)
class LatentSpace:
    """Maps images to latents, prompts to inputs of the U-Net, and noise to images."""

    tokenizer: Any
    text_encoder: nn.Module
    vae: nn.Module
    noise: Any
    """Scheduler of the base model."""
    base: Callable[[], nn.Module]
    """Function that builds the untouched U-Net."""
    name: str
    """Name of the base model: its weights' fingerprint, or its sizes where weights are random."""
    trains_text_encoder: bool = False
    device: str = "cpu"
    """Device that encodes images and draws class images; between uses the models are on the CPU."""

    def __post_init__(self) -> None:
        for module in (self.text_encoder, self.vae):
            module.eval().requires_grad_(False)

    @property
    def factor(self) -> int:
        """Pixels per latent cell, in each direction."""
        return 2 ** (len(self.vae.config.block_out_channels) - 1)

    def encode(self, images: Sequence[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode images of H x W pixels in RGB to mean and deviation of their scaled latents.

        Returns:
            Two tensors (N, 4, H / factor, W / factor) on the CPU.
        """
        import numpy as np

        device, scale = self.device, self.vae.config.scaling_factor
        self.vae.to(device)
        means, deviations = [], []
        with torch.no_grad():
            for image in images:
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(device)
                found = self.vae.encode(pixels / 127.5 - 1).latent_dist
                means.append(scale * found.mean.cpu())
                deviations.append(scale * found.std.cpu())
        self.vae.to("cpu")
        return torch.cat(means), torch.cat(deviations)

    def tokens(self, prompt: str) -> torch.Tensor:
        """Return token ids (T,), padded to the text encoder's length."""
        length = self.tokenizer.model_max_length
        found = self.tokenizer(prompt, padding="max_length", truncation=True, max_length=length)
        return torch.tensor(found["input_ids"])

    def told(self, prompt: str) -> dict[str, torch.Tensor]:
        """Return a batch's entry of a prompt: `states` (T, d), or `tokens` (T,) to train on."""
        tokens = self.tokens(prompt)
        if self.trains_text_encoder:
            return {"tokens": tokens}
        with torch.no_grad():
            return {"states": self.text_encoder(tokens[None])[0][0]}

    def pipeline(self, unet: nn.Module, text_encoder: nn.Module | None = None) -> Any:
        """Build diffusers' pipeline around a U-Net, with DDIM (Song et al. 2021) as its sampler."""
        from transformers import logging

        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # of processors that it imports, never uses, and misses
        from diffusers import DDIMScheduler, StableDiffusionPipeline

        logging.set_verbosity(verbosity)
        made: Any = StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=self.text_encoder if text_encoder is None else text_encoder,
            tokenizer=self.tokenizer,
            unet=unet,
            scheduler=DDIMScheduler.from_config(
                self.noise.config, clip_sample=False, set_alpha_to_one=False, steps_offset=1
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        made.set_progress_bar_config(disable=True)
        return made


def generate_image(
    pipeline: Any, prompt: str, *, seed: int, side: int, steps: int, guidance: float
) -> Image.Image:
    """Draw one image; its noise comes from the CPU, so that every machine draws the same.

    Args:
        pipeline: result of `LatentSpace.pipeline`, on the device to compute on.
        prompt: text of the image.
        seed: seed of the noise.
        side: side of the image in pixels.
        steps: number of DDIM steps.
        guidance: classifier-free guidance scale; 1: none.
    """
    with torch.no_grad():
        return pipeline(
            prompt,
            height=side,
            width=side,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(seed),
        ).images[0]
