from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
from PIL import Image
from report_parts import example_run, specimen, specimens
from run_folder import RunFolder

from analysis.findings import find
from analysis.pictures import pixels, png
from analysis.records import read_run
from analysis.report.inside import Inside, inside
from analysis.specimen import Specimens


def of(folder: RunFolder, found: Specimens | None) -> Inside:
    return inside(find(read_run(folder.path), found, None, None))


IDS = ["baseline", "t0013", "t0002"]


def test_usage_falls_to_the_ground_at_the_last_code_that_is_hit(run_folder: RunFolder) -> None:
    usage = of(example_run(run_folder), specimens(IDS)).usage
    assert usage is not None
    for line, used in zip(usage.lines, (21, 508, 400), strict=True):
        [path] = line.paths
        at, ground = path.split(" ")[-2:]
        assert float(at) == round(10 * usage.x.place(used))
        assert ground == "1000"
        assert f"{used} of 512" in line.label
    assert usage.even == usage.y.place(1 / 512)


def test_codes_are_drawn_by_their_use_over_the_latents(run_folder: RunFolder) -> None:
    codes = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    one = specimen(
        "t0013", "No. 1: t0013", 2, codebook=codes, code_use=np.array([9, 0, 0, 1]), latents=codes
    )
    [cloud] = of(example_run(run_folder), Specimens((one,), "image", "")).clouds
    assert sum(path.count("M") for path in cloud.used) == 2
    assert cloud.unused.count("l14") == 2
    assert cloud.latents.count("M") == 4
    assert "2 of 4 codes in use" in cloud.label


def test_examples_that_all_were_shown_stand_in_one_row(run_folder: RunFolder) -> None:
    rows = of(example_run(run_folder), specimens(IDS)).examples
    assert [len(row) for row in rows] == [4, 4, 4]
    assert [picture.part for picture in rows[0]] == ["input", "baseline", "first", "second"]
    assert all(picture.sound.startswith("data:audio/wav;base64,UklGR") for picture in rows[0])
    assert (rows[0][0].width, rows[0][0].height) == (64, 80)


def test_other_examples_have_rows_of_their_own(run_folder: RunFolder) -> None:
    found = specimens(IDS)
    other = replace(found.trials[1], inputs=tuple(x + 1 for x in found.trials[1].inputs))
    mixed = Specimens((found.trials[0], other), "spectrogram", "")
    assert len(of(example_run(run_folder), mixed).examples) == 6


def test_sound_that_is_too_much_for_a_page_is_left_out_and_said(run_folder: RunFolder) -> None:
    shown = of(example_run(run_folder), specimens(IDS, seconds=30.0))
    assert not any(picture.sound for row in shown.examples for picture in row)
    assert any("too long" in note for note in shown.notes)


def test_missing_parts_leave_the_others_and_their_notes(run_folder: RunFolder) -> None:
    bare = specimen(
        "t0013",
        "No. 1: t0013",
        5,
        histograms=(),
        codebook=None,
        latents=None,
        code_use=None,
        audio=(),
        note="its checkpoint is gone",
    )
    shown = of(example_run(run_folder), Specimens((bare,), "spectrogram", "all is dark"))
    assert shown.usage is None and shown.clouds == ()
    assert shown.notes == ("all is dark", "No. 1: t0013: its checkpoint is gone")
    assert of(run_folder, None).notes == ("Nobody has looked into the codebooks of this run.",)


def test_pixels_are_on_the_examples_scale() -> None:
    example, output = np.array([[0.0, 10.0]]), np.array([[5.0, 20.0]])
    first, second = pixels([example, output], "image")
    assert first[0, :, 0].tolist() == [0, 255]
    assert second[0, :, 0].tolist() == [128, 255]
    upright, _ = pixels([np.array([[0.0], [1.0]])] * 2, "spectrogram")
    assert upright[0].sum() > upright[1].sum()  # the last mel is on top
    for flat in (np.zeros((2, 2)), np.full((2, 2), np.nan)):
        assert pixels([flat], "image")[0].max() == 0


def test_png_files_hold_the_pixels_with_few_colours_and_with_many() -> None:
    rng = np.random.default_rng(0)
    for colours in (2, 256):
        image = rng.integers(0, colours, (40, 30, 3)).astype(np.uint8)
        read = Image.open(io.BytesIO(png(image))).convert("RGB")
        assert np.array_equal(np.asarray(read), image)
    assert base64.b64encode(png(image)).startswith(b"iVBOR")
