from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trainables.config_data import ArraysData
from trainables.data import load_dataset


class Bomb:
    """A pickle that, if it were read, would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def config(path: Path) -> ArraysData:
    return ArraysData(path=str(path), clip_frames=8, heldout=0.3)


def frames(seed: int, count: int = 20) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3)).astype(np.float32)


def test_a_file_or_a_folder_of_any_format(tmp_path):
    np.save(tmp_path / "a.npy", frames(0))
    np.savez(tmp_path / "b.npz", one=frames(1), two=frames(2))
    tensors = {"one": torch.from_numpy(frames(3)), "half": torch.from_numpy(frames(4)).bfloat16()}
    save_file(tensors, tmp_path / "c.safetensors")
    data = load_dataset(config(tmp_path))
    assert len(data.train.values) + len(data.heldout.values) == 5 * 20
    assert data.details["files"] == 3
    for name in ("b.npz", "c.safetensors"):
        alone = load_dataset(config(tmp_path / name))
        assert len(alone.train.values) == len(alone.heldout.values) == 20
        assert alone.warnings == ()


def test_arrays_of_one_file_stay_together(tmp_path):
    for name in "abc":
        np.savez(tmp_path / name, **{f"{i}": np.full((9, 2), ord(name) + i / 9) for i in range(3)})
    data = load_dataset(config(tmp_path))
    files = [
        set(np.floor(split.values * data.std + data.mean + 0.01).ravel())
        for split in (data.train, data.heldout)
    ]
    assert not files[0] & files[1]
    assert len(files[1]) == 1


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float16", "float64", ">f4", "bool"])
def test_number_types_become_float32(tmp_path, dtype):
    values = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    data = load_dataset(config(tmp_path))
    restored = data.train.values * data.std + data.mean
    np.testing.assert_allclose(restored, values[: len(restored)].astype(np.float64), atol=1e-6)


def test_fortran_order(tmp_path):
    values = frames(0, 50)
    np.save(tmp_path / "a.npy", np.asfortranarray(values))
    data = load_dataset(config(tmp_path))
    restored = data.train.values * data.std + data.mean
    np.testing.assert_allclose(restored, values[: len(restored)], atol=1e-5)


def test_pickles_are_refused_unread(tmp_path):
    mark = tmp_path / "bomb went off"
    source = tmp_path / "in"
    source.mkdir()
    for seed in range(3):
        np.save(source / f"good{seed}.npy", frames(seed))
    bomb = Bomb(mark)
    (source / "pickle.npy").write_bytes(pickle.dumps(bomb))
    (source / "pickle.npz").write_bytes(pickle.dumps(bomb))
    (source / "pickle.safetensors").write_bytes(pickle.dumps(bomb))
    np.save(source / "objects.npy", np.array([[bomb]], dtype=object), allow_pickle=True)
    np.savez(source / "objects.npz", good=frames(4), bad=np.array([[bomb]], dtype=object))
    (line,) = load_dataset(config(source)).warnings
    assert not mark.exists()
    assert line == (
        "skipped 5 of 9: 5 broken "
        "(objects.npy, objects.npz:bad, pickle.npy, pickle.npz, pickle.safetensors)"
    )


def test_what_is_unusable_is_said_once(tmp_path):
    for seed in range(3):
        np.save(tmp_path / f"good{seed}.npy", frames(seed))
    bad = frames(9)
    bad[3, 1] = np.inf
    np.save(tmp_path / "inf.npy", bad)
    np.save(tmp_path / "huge.npy", np.full((20, 3), 1e300))
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    np.save(tmp_path / "complex.npy", np.zeros((20, 3), complex))
    np.save(tmp_path / "flat.npy", np.zeros(20))
    np.save(tmp_path / "none.npy", np.zeros((0, 3)))
    np.save(tmp_path / "short.npy", frames(8, 7))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "good0.npy").read_bytes()[:-9])
    (line,) = load_dataset(config(tmp_path)).warnings
    assert line == (
        "skipped 8 of 11: 1 broken (cut.npy); "
        "2 broken by values that are not finite (huge.npy, inf.npy); 1 empty (none.npy); "
        "1 not of 2 to 4 axes (flat.npy); 2 not of numbers (complex.npy, text.npy); "
        "1 shorter than a clip of 8 frames (short.npy)"
    )


@pytest.mark.parametrize(
    ("other", "written"),
    [((20, 4), "[frames, 4]"), ((20, 3, 8), "[n, 3, 8]"), ((5, 3, 8, 8), "[n, 3, 8, 8]")],
)
def test_arrays_that_do_not_go_together(tmp_path, refused, other, written):
    np.save(tmp_path / "a.npy", frames(0))
    np.save(tmp_path / "b.npy", np.zeros(other))
    with refused("a.npy is [frames, 3]", f"b.npy is {written}", str(tmp_path)):
        load_dataset(config(tmp_path))
