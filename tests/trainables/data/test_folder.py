from __future__ import annotations

import os

import numpy as np
import pytest

from trainables.data import folder_kind
from trainables.data.folder import list_files


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["a.WAV", "deep/b.mp3", "notes.txt"], "audio"),
        (["a.png", "b.JPEG", "c.npy"], "images"),
        (["a.npz", "b.safetensors", "c.wav"], "arrays"),
        (["a.flac", ".hidden.npy", ".git/b.npy", ".git/c.npy"], "audio"),
    ],
)
def test_the_most_frequent_kind_counts(tmp_path, names, kind):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert folder_kind(tmp_path) == kind
    assert folder_kind(str(tmp_path)) == kind


def test_one_arrays_file_is_a_kind(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert folder_kind(tmp_path / "a.npy") == "arrays"
    (tmp_path / "a.wav").touch()
    with refused("a.wav", "a folder"):
        folder_kind(tmp_path / "a.wav")


def test_nothing_to_recognise(tmp_path, refused):
    with refused(str(tmp_path), ".wav", ".png", ".npy"):
        folder_kind(tmp_path)
    with refused("missing", "No such file"):
        folder_kind(tmp_path / "missing")


def test_names_are_sorted_and_links_are_followed_once(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    (inside / "deep").mkdir(parents=True)
    outside.mkdir()
    for path in (inside / "b.npy", inside / "deep" / "é\n.NPY", outside / "a.npy"):
        path.write_bytes(b"content")
    (inside / "deep" / "loop").symlink_to(inside)
    (inside / "linked").symlink_to(outside)
    (inside / "c.npy").symlink_to(outside / "a.npy")
    listing = list_files(str(inside), "arrays")
    assert listing.names == ("b.npy", "c.npy", "deep/é\n.NPY", "linked/a.npy")


def test_names_that_are_not_utf8(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xff.npy", "wb") as file:  # noqa: PTH123
        file.write(b"content")
    listing = list_files(str(tmp_path), "arrays")
    assert len(listing.names) == 1
    assert len(listing.content(tmp_path / "index")) == 64


def test_what_is_no_folder_of_the_kind(tmp_path, refused):
    (tmp_path / "a.wav").touch()
    with refused("expected a folder"):
        list_files(str(tmp_path / "a.wav"), "audio")
    with refused("allowed: .npy, .npz, .safetensors"):
        list_files(str(tmp_path / "a.wav"), "arrays")
    with refused("holds no images", ".png"):
        list_files(str(tmp_path), "images")
    with refused("No such file"):
        list_files(str(tmp_path / "missing\nfolder"), "audio")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with refused("loop", "cannot be read"):
        list_files(str(tmp_path / "loop"), "audio")


def test_folders_that_may_not_be_read(tmp_path, refused):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.npy").touch()
    (tmp_path / "closed").chmod(0)
    try:
        if os.access(tmp_path / "closed", os.R_OK):
            pytest.skip("root may read everything")
        with refused("Permission denied"):
            list_files(str(tmp_path / "closed"), "audio")
        (skipped,) = list_files(str(tmp_path), "arrays").closed
        assert (skipped.name, skipped.reason) == ("closed", "unreadable folder")
    finally:
        (tmp_path / "closed").chmod(0o700)
