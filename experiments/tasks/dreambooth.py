"""DreamBooth: learn a subject from a handful of photos, and draw it in other surroundings."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from experiments import hub
from experiments.hub.fingerprints import Files
from experiments.metrics import fid
from experiments.models.head import Head
from experiments.results.identity import LOCAL
from experiments.tasks import image_files
from experiments.tasks.dreambooth_data import (
    LISTING,
    Pairs,
    Subject,
    add_fixed_noise,
    collate,
    draw_class_images,
    encode_images,
    read_subject,
)
from experiments.tasks.task import Data, OutputScores, Task

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import nn

    from experiments.models.latent_diffusion import LatentSpace

log = logging.getLogger(__name__)

PHOTOS = "photos"
"""Split with the photos at fixed noise, so that losses of evaluations can be compared."""


@dataclass(kw_only=True)
class DreamBooth(Task):
    """Noise prediction on photos of a subject and, to keep its class, on the model's own images."""

    repo: str
    """Hub repository of the photos."""
    subject: str
    """Folder of the photos, and row of the file with prompts and classes."""
    token: str
    """Word that stands for the subject."""
    class_name: str | None = None
    """Class of the subject; null: the one in the file with prompts and classes."""
    instance_prompt: str
    """Prompt of the photos; {token} and {class_name} are filled in, here and below."""
    class_prompt: str
    """Prompt of the class images."""
    prompts: list[str] | None = None
    """Prompts to draw in the end; null: the data set's prompts for objects or live subjects."""
    prior_weight: float
    """Weight of the class images' loss; 0: none are used."""
    class_images: int
    """Class images that the untouched base model draws, once for all runs."""
    class_path: str | None = field(default=None, metadata=LOCAL)
    """Local folder with class images, instead of drawing them."""
    resolution: int
    """Pixels of the images' sides; photos are cut to a square around their middle."""
    images_per_prompt: int
    """Images drawn for each prompt."""
    steps: int
    """Steps of the sampler (DDIM)."""
    guidance: float
    """Scale of classifier-free guidance; 1: none."""
    extractor: str | None = field(default=None, metadata=LOCAL)
    """Inception's weights for metric fid, as safetensors."""
    metrics: list[str] = field()
    """Metrics: fid (Inception's features) or frechet_pixels (for rehearsals), primary first."""

    @property
    def head(self) -> Head:
        """Head of the diffusion model itself."""
        return Head(kind="denoising")

    @property
    def selects(self) -> bool:
        """See `Task.selects`: the images drawn in the end are scored."""
        return False

    @property
    def measurable(self) -> Sequence[str]:
        """See `Task.measurable`."""
        return fid.METRICS

    def problems(self) -> Iterator[str]:
        """See `Task.problems`."""
        yield from super().problems()
        for key in ("resolution", "images_per_prompt"):
            if getattr(self, key) < 1:
                yield f"task.{key}={getattr(self, key)}: must be at least 1"
        if not 1 <= self.steps <= 1000:
            yield f"task.steps={self.steps}: must be from 1 to 1000"
        for key in ("guidance", "prior_weight", "class_images"):
            if not 0 <= getattr(self, key) < math.inf:
                yield f"task.{key}={getattr(self, key)}: must not be negative"
        if self.prior_weight > 0 and self.class_images < 1 and self.class_path is None:
            yield (
                f"task.class_images={self.class_images}: must be at least 1 with "
                f"task.prior_weight={self.prior_weight:g} (or task.prior_weight=0: no class images)"
            )
        for key in ("subject", "token"):
            if not getattr(self, key).strip() or "/" in getattr(self, key):
                yield f"task.{key}={getattr(self, key)!r}: must be a word"
        texts = {"instance_prompt": self.instance_prompt, "class_prompt": self.class_prompt}
        texts |= {f"prompts[{place}]": text for place, text in enumerate(self.prompts or ())}
        for key, text in texts.items():
            try:
                text.format(token="", class_name="")
            except (KeyError, IndexError, ValueError):
                yield f"task.{key}={text!r}: wrong braces (allowed: {{token}}, {{class_name}})"
        if self.prompts is not None:
            slugs = [image_files.make_slug(text) for text in self.prompts]
            if not slugs or len(set(slugs)) < len(slugs):
                yield f"task.prompts={self.prompts}: must be different prompts, at least one"

    def locate(self, offline: bool = False) -> str | None:
        """See `Task.locate`."""
        probe = f"dataset/{self.subject}/00.jpg"
        source = hub.locate(
            self.repo, self.path, probe=probe, option="task.path", kind="dataset", offline=offline
        )
        if self.path is not None:
            self._subject(source)
        return source

    def downloads(self) -> list[hub.Download]:
        """See `Task.downloads`."""
        if self.path is not None:
            return []
        files = (f"dataset/{self.subject}/*", f"dataset/{LISTING}")
        return [hub.Download(repo=self.repo, kind="dataset", patterns=files)]

    def inputs(self) -> dict[str, Files]:
        """See `Task.inputs`."""
        folder, found = hub.locate_local(self.repo, self.path, kind="dataset"), {}
        if folder is not None:
            found = read_subject(folder, self.subject, self.class_name, self.prompts).inputs
        if self.class_path is not None and self.prior_weight > 0:
            paths = image_files.list_images(Path(self.class_path).expanduser())
            found[f"class images of {self.subject}"] = Files(paths=paths)
        if self.extractor is not None:
            found["feature extractor"] = Files(paths=[Path(self.extractor).expanduser()])
        return found

    def check(self) -> None:
        """See `Task.check`: Inception's weights are looked at before anything is trained."""
        if self.extractor is not None:
            fid.InceptionFeatures(Path(self.extractor).expanduser())

    def load(self, processor: LatentSpace, source: str | None) -> Data:
        """See `Task.load`; a training row is a photo and, with prior preservation, a class image.

        The distributions of their latents are computed here, once.
        """
        subject = self._subject(source)
        photos = self._squares(subject.folder)
        prompt = self._filled(self.instance_prompt, subject)
        own = encode_images(processor, photos, prompt, label=0, weight=1.0)
        digest = hashlib.sha256()
        for path in image_files.list_images(subject.folder):
            digest.update(path.read_bytes())
        others: list[dict[str, Any]] = []
        if self.prior_weight > 0:
            prompt = self._filled(self.class_prompt, subject)
            images = self._class_images(processor, prompt)
            others = encode_images(processor, images, prompt, label=1, weight=self.prior_weight)
            if self.class_path is not None:
                digest.update(b"".join(image.tobytes() for image in images))
        drawn = [
            {"prompt": self._filled(text, subject), "number": number}
            for text in subject.prompts
            for number in range(self.images_per_prompt)
        ]
        return Data(
            train=Pairs(photos, own, others, self.train_rows),
            evaluations={PHOTOS: add_fixed_noise(own, processor)[: self.eval_rows]},
            prompts={self.subject: drawn[: self.eval_rows]},
            collate=collate,
            fingerprint=digest.hexdigest(),
        )

    def score(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        """Compute the mean squared error of the photos at fixed noise.

        Args:
            predictions: (rows,) errors.
            references: (rows,) zeros.
        """
        return {"denoising_loss": float(predictions.mean())}

    def generate(
        self, net: nn.Module, processor: LatentSpace, data: Data, run_dir: Path, seed: int
    ) -> None:
        """Draw images/<prompt>/NN.png; the photos are in images/subject, all in images/grid.png.

        The noise of an image follows from seed, prompt and number alone.
        """
        from tqdm import tqdm

        from experiments.models.latent_diffusion import generate_image
        from experiments.seeding import stream
        from fourierft.holding import hold_weights

        folder = run_dir / image_files.FOLDER
        folder.mkdir(exist_ok=True)
        photos = cast(Pairs, data.train).photos
        for number, photo in enumerate(photos):
            image_files.save(photo, folder / image_files.SUBJECT / f"{number:02d}.png")
        plain = net.get_base_model() if hasattr(net, "get_base_model") else net
        device, training = next(net.parameters()).device, net.training
        pipeline = processor.pipeline(plain.unet, plain.text_encoder).to(device)
        drawn: dict[str, list[Path]] = {}
        net.eval()
        try:
            with hold_weights(net):
                for row in tqdm(data.prompts[self.subject], desc="Drawing", disable=None):
                    prompt, number = row["prompt"], row["number"]
                    path = folder / image_files.make_slug(prompt) / f"{number:02d}.png"
                    drawn.setdefault(prompt, []).append(path)
                    if not image_files.is_whole(path):
                        noise = stream(seed, f"image {number} of {prompt}")
                        image = generate_image(pipeline, prompt, seed=noise, **self._how())
                        image_files.save(image, path, prompt=prompt, seed=str(noise))
        finally:
            net.train(training)
        rows = [
            (prompt, [image_files.read(path) for path in paths]) for prompt, paths in drawn.items()
        ]
        image_files.save(image_files.draw_grid(rows, photos), folder / image_files.GRID)

    def evaluate_outputs(self, run_dir: Path, *, device: str = "auto") -> OutputScores | None:
        """See `Task.evaluate_outputs`: all drawn images against the photos, whatever the prompt."""
        folder = run_dir / image_files.FOLDER
        real = image_files.read_folder(folder / image_files.SUBJECT)
        images = [
            image
            for part in sorted(path for path in folder.iterdir() if path.is_dir())
            if part.name != image_files.SUBJECT
            for image in image_files.read_folder(part)
        ]
        few = min(len(images), len(real)) < 2
        if few:
            log.warning("%d drawn, %d real images: no distance of so few", len(images), len(real))
        scores: dict[str, float] = {}
        details: dict[str, Any] = {"drawn": len(images), "real": len(real)}
        for name in self.metrics:
            extractor = self._extractor(name, device)
            if few or extractor is None:
                scores[name] = math.nan
                continue
            scores[name] = fid.compute_distance(extractor, images, real)
            details[name] = extractor.description
        return OutputScores(scores={self.subject: scores}, details=details)

    def _extractor(self, metric: str, device: str) -> fid.Extractor | None:
        """Return the features of a metric; None if their weights are not given."""
        if metric != "fid":
            return fid.PixelFeatures()
        if self.extractor is None:
            log.warning(
                "fid is not measured: task.extractor names no weights of Inception; "
                "python -m experiments.commands.fid measures it afterwards"
            )
            return None
        return fid.InceptionFeatures(Path(self.extractor).expanduser(), device)

    def _subject(self, source: str | None) -> Subject:
        """Read photos and prompts, downloaded if necessary."""
        folder = Path(source or self.repo)
        if self.path is None:
            folder = hub.fetch(*self.downloads())
        return read_subject(folder, self.subject, self.class_name, self.prompts)

    def _filled(self, text: str, subject: Subject) -> str:
        return text.format(token=self.token, class_name=subject.class_name)

    def _squares(self, folder: Path) -> list[Image.Image]:
        images = image_files.read_folder(folder)
        return [image_files.crop_square(image, self.resolution) for image in images]

    def _how(self) -> dict[str, Any]:
        """Return the settings of drawing an image."""
        return {"side": self.resolution, "steps": self.steps, "guidance": self.guidance}

    def _class_images(self, processor: LatentSpace, prompt: str) -> list[Image.Image]:
        """Return class images: those of `class_path`, or the untouched model's, drawn once."""
        if self.class_path is not None:
            return self._squares(Path(self.class_path).expanduser())
        return draw_class_images(processor, prompt, self.class_images, self._how())
