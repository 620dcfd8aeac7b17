from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainables.config_data import ImagesData
from trainables.data import load_dataset
from trainables.data.images import read_image


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("extension", ["png", "jpg", "jpeg", "bmp", "webp", "gif", "tif", "PNG"])
@pytest.mark.parametrize("grayscale", [False, True])
def test_formats(tmp_path, extension, grayscale):
    for number in range(3):
        picture(20, 12, number).save(tmp_path / f"{number}.{extension}")
    data = load_dataset(ImagesData(path=str(tmp_path), size=8, grayscale=grayscale))
    assert data.example_shape == (1 if grayscale else 3, 8, 8)
    assert (len(data.train), len(data.heldout)) == (2, 1)
    assert data.clip_frames is None
    assert data.warnings == ()


def test_the_centre_is_kept(tmp_path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (10, 0, 30, 20))
    image.save(tmp_path / "wide.png")
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "high.png")
    for name in ("wide.png", "high.png"):
        inner = read_image(tmp_path / name, 10, grayscale=False)[..., 1:-1, 1:-1]
        np.testing.assert_allclose(inner, 1)


def test_channels_come_first_and_values_lie_in_0_to_1(tmp_path):
    Image.new("RGB", (8, 8), (255, 51, 0)).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", 4, grayscale=False)
    assert pixels.shape == (1, 3, 4, 4)
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels[0, :, 0, 0], [1, 0.2, 0], atol=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(np.full((8, 8), 32_768, np.uint16)),
        Image.new("RGBA", (8, 8), (128, 128, 128, 10)),
        Image.new("LA", (8, 8), (128, 10)),
        Image.new("RGB", (8, 8), (128, 128, 128)).quantize(2),
        Image.new("CMYK", (8, 8), (127, 127, 127, 0)),
    ],
    ids=["16 bits", "RGBA", "LA", "palette", "CMYK"],
)
def test_modes(tmp_path, image):
    path = tmp_path / ("a.tif" if image.mode == "CMYK" else "a.png")
    image.save(path)
    for grayscale in (False, True):
        pixels = read_image(path, 4, grayscale)
        np.testing.assert_allclose(pixels, 0.5, atol=0.005)


def test_the_first_frame_of_several_counts(tmp_path):
    first, second = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "black")
    for name in ("a.gif", "a.webp", "a.tif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        assert read_image(tmp_path / name, 4, grayscale=True).min() > 0.98


def test_what_is_unusable_is_said_once(tmp_path: Path, recwarn):
    for number in range(3):
        picture(9, 9, number).save(tmp_path / f"good{number}.png")
    whole = (tmp_path / "good0.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.gif").touch()
    Image.new("F", (8, 8), 0.5).save(tmp_path / "float.tif")
    see_through = Image.new("RGB", (8, 8), "red").quantize(4)
    see_through.save(tmp_path / "good3.png", transparency=b"\x00\x10\x20\x30")
    (line,) = load_dataset(ImagesData(path=str(tmp_path), size=8)).warnings
    assert line == (
        "skipped 4 of 8: 2 broken (cut.png, text.jpg); "
        "1 broken by pixels that are floats (float.tif); 1 empty (empty.gif)"
    )
    assert not recwarn.list


def test_one_picture_cannot_be_split(tmp_path, refused):
    picture(9, 9).save(tmp_path / "a.png")
    with refused(str(tmp_path), "a.png", "one example"):
        load_dataset(ImagesData(path=str(tmp_path), size=8))
