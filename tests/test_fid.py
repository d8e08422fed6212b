"""The Frechet distance against closed forms, and what may be called FID."""

import numpy as np
import pytest
from PIL import Image
from scipy import linalg

from experiments.commands.fid import main
from experiments.errors import DataError
from experiments.metrics import fid
from experiments.tasks import image_files


def exact(deviations, mean=0.0):
    """Samples whose mean and (diagonal) covariance are exactly what is asked for."""
    width = len(deviations)
    axes = np.concatenate([np.eye(width), -np.eye(width)]) * np.sqrt((2 * width - 1) / 2)
    return axes * np.asarray(deviations) + mean


def distance(first, second):
    return fid.frechet_distance(fid.compute_moments(first), fid.compute_moments(second))


@pytest.fixture
def draw():
    return np.random.default_rng(0)


@pytest.mark.parametrize("count", [5, 200])
def test_identical_sets_are_at_zero(draw, count):
    """With fewer and with more images than features."""
    features = draw.normal(size=(count, 30))
    assert distance(features, features[::-1]) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("count", [5, 200])
def test_a_shift_costs_its_square(draw, count):
    features, shift = draw.normal(size=(count, 30)), draw.normal(size=30)
    assert distance(features, features + shift) == pytest.approx(shift @ shift, rel=1e-10)


def test_exact_samples_have_the_moments_they_claim():
    found = fid.compute_moments(exact([1.0, 2.0, 3.0], mean=4.0))
    assert found.mean == pytest.approx([4, 4, 4])
    assert found.factor.T @ found.factor == pytest.approx(np.diag([1.0, 4.0, 9.0]))


def test_gaussians_with_diagonal_covariances():
    """|m1 - m2|^2 + sum (s1 - s2)^2."""
    first, second = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.0, 0.25])
    expected = 3 * 2.0**2 + ((first - second) ** 2).sum()
    assert distance(exact(first), exact(second, mean=2.0)) == pytest.approx(expected)


def test_a_scaled_set(draw):
    """C2 = a^2 C1: (1 - a)^2 (|m|^2 + tr C1)."""
    features = draw.normal(size=(60, 20)) + 1
    mean, spread = features.mean(0), features.var(0, ddof=1).sum()
    expected = 0.5**2 * (mean @ mean + spread)
    assert distance(features, 1.5 * features) == pytest.approx(expected)


def test_the_usual_formula_where_it_works(draw):
    mixing = draw.normal(size=(12, 12))
    first, second = draw.normal(size=(90, 12)) @ mixing, draw.normal(size=(70, 12)) + 0.3
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = first.mean(0) - second.mean(0)
    expected = shift @ shift + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert distance(second, first) == pytest.approx(expected, rel=1e-8)


def test_singular_covariances(draw):
    """Six images of 40 features: the trace of the root from the eigenvalues of the product."""
    first, second = draw.normal(size=(6, 40)), draw.normal(size=(5, 40))
    covariances = [np.cov(features, rowvar=False) for features in (first, second)]
    roots = np.sqrt(np.abs(np.sort(np.linalg.eigvals(covariances[0] @ covariances[1]).real)[-4:]))
    shift = first.mean(0) - second.mean(0)
    traces = np.trace(covariances[0]) + np.trace(covariances[1])
    expected = shift @ shift + traces - 2 * roots.sum()
    assert distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_few_images_are_biased_upwards(draw):
    """What the warning is about: two draws of one distribution, the fewer the farther apart."""
    found = [distance(*draw.normal(size=(2, count, 50))) for count in (10, 100, 1000)]
    assert found[0] > 4 * found[1] > 16 * found[2] > 0


def test_one_image_has_no_covariance():
    with pytest.raises(DataError, match="at least 2 images, found 1"):
        fid.compute_moments(np.zeros((1, 4)))


def test_pixels_are_the_mean_colours_of_an_8_by_8_grid():
    image = Image.new("RGB", (64, 64), "black")
    image.paste((255, 0, 51), (0, 0, 32, 64))
    found = (
        fid.PixelFeatures()
        .features([image, image.resize((16, 16), Image.Resampling.NEAREST)])
        .reshape(2, 8, 8, 3)
    )
    assert found[:, :, :4] == pytest.approx(np.broadcast_to([1, 0, 0.2], (2, 8, 4, 3)))
    assert not found[:, :, 4:].any()
    assert fid.PixelFeatures().description["features"] == found[0].size


# Inception


def test_inception_has_its_known_size():
    """torchvision's network without its second head has 23,834,568 numbers; here are 1008 classes,
    as in TensorFlow's file, instead of 1000."""
    import torch

    from experiments.metrics.inception import Inception

    with torch.device("meta"):
        net = Inception()
    assert sum(value.numel() for value in net.parameters()) == 23_834_568 + 8 * 2049
    shapes = {name: tuple(value.shape) for name, value in net.named_parameters()}
    assert shapes["Mixed_6a.branch3x3dbl_3.conv.weight"] == (96, 96, 3, 3)
    assert shapes["Mixed_6e.branch7x7dbl_2.conv.weight"] == (192, 192, 7, 1)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["Mixed_7b.branch_pool.bn.weight"] == (192,)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("inception.pth", "may hold code"),
        ("nothing.safetensors", "no weights can be read there"),
        ("damaged.safetensors", "no weights can be read there"),
        ("other.safetensors", "not InceptionV3's weights"),
    ],
)
def test_files_that_are_not_inceptions_weights(tmp_path, name, words):
    import torch
    from safetensors.torch import save_file

    (tmp_path / "inception.pth").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x00" * 30)
    save_file({"fc.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(DataError, match=words):
        fid.InceptionFeatures(tmp_path / name)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import torch
    from safetensors.torch import save_file

    from experiments.metrics.inception import Inception

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.safetensors"
    save_file(Inception().state_dict(), path)
    return path


@pytest.mark.slow
def test_inceptions_features(weights, data_folder, monkeypatch):
    images = image_files.read_folder(data_folder / "dreambooth/dog")[:3]
    extractor = fid.InceptionFeatures(weights)
    found = extractor.features(images)
    assert found.shape == (3, 2048) and np.isfinite(found).all()
    assert np.linalg.matrix_rank(found - found.mean(0)) == 2
    alone = extractor.features(images[1:2])
    assert alone[0] == pytest.approx(found[1], rel=1e-5, abs=1e-7)
    said = []
    monkeypatch.setattr(fid.log, "warning", lambda text, *values: said.append(text % values))
    assert fid.compute_distance(extractor, images, images) == pytest.approx(0, abs=1e-10)
    assert len(said) == 1 and said[0].startswith("inception: ")
    assert extractor.description["weights_sha256"] is not None


# The command


def test_command(data_folder, tmp_path, capsys):
    place = data_folder / "dreambooth"
    real, other = str(place / "dog"), str(place / "vase")
    assert main([real, real, other]) == 0  # the real images are never compared with themselves
    said = capsys.readouterr().out
    assert said.startswith("frechet_pixels ") and "6 drawn, 5 real" in said
    assert main([real, str(tmp_path)]) == 1
    assert "holds no image" in capsys.readouterr().err
