"""Adapt a U-Net of diffusers, save the adapter, and load it into a fresh pipeline.

    python examples/train_unet.py --base stable-diffusion-v1-5/stable-diffusion-v1-5

Through `get_peft_model`: what diffusers' own `unet.add_adapter` saves of a FourierFT adapter it
cannot load again. Without --base the U-Net is a tiny one with random weights.
"""

import argparse

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import PeftModel, get_peft_model

import fourierft

parser = argparse.ArgumentParser(description="Adapt a U-Net of diffusers.")
parser.add_argument("--base", help="name on the hub, or a folder, of a Stable Diffusion")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--out", default="adapter", help="folder for the adapter")
given = parser.parse_args()


def load_unet() -> UNet2DConditionModel:
    """Load the U-Net of the base model, or make the tiny one."""
    if given.base is not None:
        return UNet2DConditionModel.from_pretrained(given.base, subfolder="unet")
    torch.manual_seed(0)
    blocks = {
        "down_block_types": ["CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D"],
    }
    sizes = {"block_out_channels": [32], "norm_num_groups": 8, "cross_attention_dim": 32}
    return UNet2DConditionModel(sample_size=8, attention_head_dim=8, **blocks, **sizes)


config = fourierft.FourierFTConfig(
    n_frequency=200, scaling=150.0, target_modules=["to_q", "to_v"], random_loc_seed=0
)
unet = load_unet()
width, side = unet.config.cross_attention_dim, unet.config.sample_size
net = get_peft_model(unet, config)
net.print_trainable_parameters()

# In their place: latents of your images, and the text encoder's output for their captions.
latents, texts = torch.randn(4, unet.config.in_channels, side, side), torch.randn(4, 7, width)
scheduler = DDPMScheduler()
optimizer = torch.optim.AdamW([value for value in net.parameters() if value.requires_grad], lr=3e-2)
for step in range(given.steps):
    noise = torch.randn_like(latents)
    times = torch.randint(scheduler.config.num_train_timesteps, (len(latents),))
    noisy = scheduler.add_noise(latents, noise, times)
    loss = torch.nn.functional.mse_loss(net(noisy, times, texts).sample, noise)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 5 == 0:
        print(f"step {step}: loss {loss.item():.4f}")

net.save_pretrained(given.out)
restored = PeftModel.from_pretrained(load_unet(), given.out)
with torch.no_grad():
    difference = (
        (restored(noisy, times, texts).sample - net(noisy, times, texts).sample).abs().max()
    )
print(f"written: {given.out}; loaded again, its output differs by {difference.item():.1e}")
merged = restored.merge_and_unload()  # a plain U-Net: pipeline.unet = merged
