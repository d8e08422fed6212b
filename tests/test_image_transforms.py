"""Views of images: where crops lie, what they show, colour modes, damaged files."""

import io
import math
import warnings

import numpy as np
import pytest
from PIL import Image

from experiments.tasks import image_transforms


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def picture(width=61, height=45, mode="RGB"):
    """Smooth colours with some texture, so that shifts and swaps show."""
    down, across = np.mgrid[:height, :width]
    channels = [across * 255 / width, down * 255 / height, (across * 7 + down * 3) % 256]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8)).convert(mode)


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def crops(width, height, count=2000):
    return [
        image_transforms.draw_crop(width, height, np.random.default_rng(key))
        for key in range(count)
    ]


@pytest.mark.parametrize("size", [(400, 400), (500, 333), (32, 32), (7, 90), (1, 1), (1000, 10)])
def test_crops_lie_inside(size):
    width, height = size
    for crop in crops(width, height, 300):
        left, top, right, bottom = crop.box
        assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_crops_are_drawn_as_announced():
    found = crops(400, 400)
    shares = np.array([crop.width * crop.height / 400**2 for crop in found])
    aspects = np.log([crop.width / crop.height for crop in found])
    assert 0.078 < shares.min() < 0.09 and shares.max() > 0.95
    assert np.abs(aspects).max() == pytest.approx(math.log(4 / 3), abs=0.02)
    assert abs(aspects.mean()) < 0.02 and abs(aspects[shares < 0.5].std() - 0.166) < 0.01
    # Evenly where every aspect fits: shares below 3/4.
    small = shares[shares < 0.75]
    assert np.histogram(small, bins=5, range=(0.08, 0.75))[0] == pytest.approx(
        len(small) / 5, rel=0.15
    )
    assert np.mean([crop.mirrored for crop in found]) == pytest.approx(0.5, abs=0.04)
    lefts = [crop.left / (400 - crop.width) for crop in found if crop.width < 400]
    assert np.histogram(lefts, bins=4, range=(0, 1))[0] == pytest.approx(len(lefts) / 4, rel=0.15)


@pytest.mark.parametrize(
    ("size", "middle"), [((1000, 10), (493, 0, 13, 10)), ((10, 1000), (0, 493, 10, 13))]
)
def test_a_crop_that_never_fits_becomes_the_middle(size, middle):
    """Ten times nothing fits a strip a hundred times as long as wide."""
    for crop in crops(*size, 20):
        assert (crop.left, crop.top, crop.width, crop.height) == middle


def test_a_view_is_decided_by_its_generator_alone():
    content = encoded(picture())
    first, again, other = (
        image_transforms.make_training_view(content, 32, np.random.default_rng(key))
        for key in (3, 3, 4)
    )
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_training_view_is_the_crop_scaled_and_mirrored(kind):
    content = encoded(picture(), kind)
    seen = set()
    for key in range(12):
        crop = image_transforms.draw_crop(61, 45, np.random.default_rng(key))
        if min(crop.width, crop.height) >= 64:
            continue
        part = np.asarray(
            Image.open(io.BytesIO(content))
            .crop((crop.left, crop.top, crop.left + crop.width, crop.top + crop.height))
            .resize((32, 32), Image.BILINEAR)
        )
        view = image_transforms.make_training_view(content, 32, np.random.default_rng(key))
        assert np.array_equal(view, part[:, ::-1] if crop.mirrored else part)
        seen.add(crop.mirrored)
    assert seen == {True, False}


def test_large_photographs_are_decoded_smaller_and_look_the_same(data_folder, monkeypatch):
    photographs = sorted((data_folder / "dreambooth").glob("*/00.jpg"))
    assert len(photographs) == 4
    factors, whole = [], image_transforms._decode_smaller

    def noted(image, crop, side):
        factors.append(whole(image, crop, side))
        assert min(crop.width, crop.height) / factors[-1] >= side - 1
        return factors[-1]

    differences = []
    for position, path in enumerate(photographs):
        content = path.read_bytes()
        views = []
        for shortcut in (noted, lambda *_: 1):
            monkeypatch.setattr(image_transforms, "_decode_smaller", shortcut)
            draw = np.random.default_rng(position)
            views.append(image_transforms.make_training_view(content, 96, draw).astype(int))
        differences.append(np.abs(views[0] - views[1]).mean())
    assert max(factors) >= 2 and set(factors) <= {1, 2, 4, 8}
    assert max(differences) < 2.5, "another part of the photograph"


@pytest.mark.parametrize("size", [(61, 45), (45, 61), (40, 40), (200, 20), (33, 500)])
def test_an_evaluation_view_is_the_middle(size):
    """Against transformers' own resizing and cropping."""
    from transformers import CLIPImageProcessorPil

    reference = CLIPImageProcessorPil(
        size={"shortest_edge": 32},
        crop_size={"height": 32, "width": 32},
        resample=Image.BILINEAR,
        do_rescale=False,
        do_normalize=False,
    )
    image = picture(*size)
    expected = np.asarray(reference(image)["pixel_values"][0]).transpose(1, 2, 0)
    found = image_transforms.make_evaluation_view(encoded(image), 32)
    assert found.shape == (32, 32, 3) and found.dtype == np.uint8
    # Half a pixel is rounded down there, to the even neighbour here and in torchvision.
    starts = [
        np.roll(expected, (-down, -across), (0, 1)) for down, across in ((0, 0), (1, 0), (0, 1))
    ]
    differences = [np.abs(found[:-1, :-1].astype(int) - one[:-1, :-1]).max() for one in starts]
    assert min(differences) <= 1


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "PNG"), ("LA", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG"), ("P", "GIF")]
    + [("L", "JPEG"), ("CMYK", "JPEG"), ("CMYK", "TIFF")],
)
def test_every_mode_becomes_colour(mode, kind):
    image = picture(mode=mode)
    content = encoded(image, kind)
    assert image_transforms.find_fault(content) is None
    for view in (
        image_transforms.make_training_view(content, 32, np.random.default_rng(0)),
        image_transforms.make_evaluation_view(content, 32),
    ):
        assert view.shape == (32, 32, 3) and view.std() > 10
    middle = np.asarray(image.convert("RGB").resize((43, 32), Image.BILINEAR))[:, 6:38]
    assert (
        np.abs(image_transforms.make_evaluation_view(content, 32).astype(int) - middle).mean() < 40
    )


def test_a_transparent_palette_is_converted_without_a_warning():
    image = picture(mode="P")
    content = encoded(image, "PNG", transparency=bytes(range(256)))
    assert "transparency" in Image.open(io.BytesIO(content)).info
    assert image_transforms.make_evaluation_view(content, 16).shape == (16, 16, 3)


def test_photographs_are_turned_as_they_were_taken():
    exif = Image.Exif()
    exif[0x0112] = 6  # held on its side: turn clockwise
    content = encoded(picture(600, 300), "JPEG", exif=exif, quality=95)
    upright = picture(600, 300).transpose(Image.Transpose.ROTATE_270)
    expected = image_transforms.make_evaluation_view(encoded(upright), 64).astype(int)
    assert np.abs(image_transforms.make_evaluation_view(content, 64) - expected).mean() < 4
    assert image_transforms.make_training_view(content, 32, np.random.default_rng(0)).shape == (
        32,
        32,
        3,
    )


GOOD = {kind: encoded(picture(), kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")}


@pytest.mark.parametrize("kind", GOOD)
def test_whole_files_have_no_fault(kind):
    assert image_transforms.find_fault(GOOD[kind]) is None
    assert image_transforms.find_fault(memoryview(GOOD[kind])) is None


@pytest.mark.parametrize("kind", GOOD)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.9])
def test_cut_files_are_found(kind, share):
    content = GOOD[kind][: int(share * len(GOOD[kind]))]
    assert image_transforms.find_fault(content), kind


def test_a_jpeg_with_bytes_behind_its_end_is_whole():
    assert image_transforms.find_fault(GOOD["JPEG"] + b"\0\0 camera") is None


def test_flipped_bits_of_a_png_are_found():
    content = bytearray(GOOD["PNG"])
    content[len(content) // 2] ^= 255
    assert image_transforms.find_fault(bytes(content))


def test_what_is_no_image_and_what_is_too_deep():
    assert image_transforms.find_fault(b"<html>not found</html>") == "no image"
    deep = Image.fromarray((np.arange(100, dtype=np.uint16) * 600).reshape(10, 10))
    assert "more than eight bits" in image_transforms.find_fault(encoded(deep))
