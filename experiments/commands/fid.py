"""Frechet distance between two sets of images: FID with Inception features, or of pixels.

    python -m experiments.commands.fid REAL DRAWN [DRAWN ...] --weights inception.safetensors

Weights are read from safetensors files only. The common files are pickles or TorchScript, and
torch.jit.load unpickles too (its documentation warns of code in the file). Convert a file you trust
once: `save_file(torch.load(path, weights_only=True), "inception.safetensors")`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from experiments import console
from experiments.errors import UserError
from experiments.metrics.fid import METRICS, InceptionFeatures, PixelFeatures, compute_distance
from experiments.tasks.image_files import read_folder


def main(arguments: list[str] | None = None) -> int:
    """Print the distance of generated images, in one or several folders, from real ones."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.commands.fid",
        description="Frechet distance of generated from real images.",
    )
    parser.add_argument("real", type=Path, help="folder of real images")
    parser.add_argument("drawn", type=Path, nargs="+", help="folders of generated images")
    parser.add_argument(
        "--weights", type=Path, help="Inception weights (.safetensors); default: frechet_pixels"
    )
    asked = parser.parse_intermixed_args(arguments)
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    try:
        extractor = InceptionFeatures(asked.weights) if asked.weights else PixelFeatures()
        real = read_folder(asked.real)
        folders = [folder for folder in asked.drawn if folder.resolve() != asked.real.resolve()]
        drawn = [image for folder in folders for image in read_folder(folder)]
        value = compute_distance(extractor, drawn, real)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    name = METRICS[0] if asked.weights else METRICS[1]
    print(f"{name} {value:.4f} ({len(drawn)} drawn, {len(real)} real images)")
    return 0


if __name__ == "__main__":
    console.run_command("experiments.fid", main)
