"""The whole road on small arrays: split, clips, normalisation, the cache and its accidents."""

from __future__ import annotations

import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest

from trainables.config_data import ArraysData, DigitsData
from trainables.data import Dataset, assemble, dataset, folder, load_dataset

T = 8


def write_sequences(folder: Path, lengths: list[int], channels: int = 3) -> Path:
    """Sequences whose values name their file and frame, so that every row can be recognised."""
    folder.mkdir(exist_ok=True)
    for number, length in enumerate(lengths):
        frames = 1000.0 * number + np.arange(length)[:, None] + 0.25 * np.arange(channels)
        np.save(folder / f"{number:03}.npy", frames.astype(np.float32))
    return folder


def config(folder: Path, **changes: object) -> ArraysData:
    return ArraysData.model_validate(
        {"path": str(folder), "clip_frames": T, "heldout": 0.3, **changes}
    )


def rows(data: Dataset, side: str) -> np.ndarray:
    """The first channel of all frames, as it was in the files."""
    return np.rint(getattr(data, side).values[:, 0] * data.std + data.mean).astype(int)


@pytest.fixture
def builds(monkeypatch) -> list[Path]:
    """The folders that were built, in order."""
    calls: list[Path] = []

    def counted(*arguments):
        calls.append(arguments[-1])
        return assemble.assemble(*arguments)

    monkeypatch.setattr(dataset, "assemble", counted)
    return calls


def test_clips_of_both_sides(tmp_path):
    lengths = [8, 9, 17, 31, 40, 23, 12]
    data = load_dataset(config(write_sequences(tmp_path / "in", lengths)))
    train, heldout = rows(data, "train"), rows(data, "heldout")
    assert sorted({*train, *heldout}) == [
        1000 * number + frame for number, length in enumerate(lengths) for frame in range(length)
    ]
    assert len(set(heldout // 1000)) == 2
    assert not set(train // 1000) & set(heldout // 1000)
    assert data.clip_frames == T
    assert data.example_shape == (3, T)
    assert len(data.train) == sum(lengths[number] // T for number in set(train // 1000))
    for split, values in ((data.train, train), (data.heldout, heldout)):
        for start, slack in zip(split.starts, split.slack, strict=True):
            clip = values[start : start + slack + T]
            np.testing.assert_array_equal(np.diff(clip), 1)  # neighbours in one file
    assert not data.heldout.slack.any()
    assert data.train.slack.any()


def test_normalised_over_the_training_side(tmp_path):
    data = load_dataset(config(write_sequences(tmp_path / "in", [40, 50, 60, 70])))
    values = data.train.values.astype(np.float64)
    assert abs(values.mean()) < 1e-6
    assert values.std() == pytest.approx(1, abs=1e-6)
    assert data.train.values.dtype == np.float32


def test_items(tmp_path):
    whole = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 5), dtype=np.uint8)
    np.save(tmp_path / "items.npy", whole)
    data = load_dataset(config(tmp_path))
    assert data.clip_frames is None
    assert data.example_shape == (3, 4, 5)
    assert (len(data.train), len(data.heldout)) == (14, 6)
    restored = np.concatenate([data.train.values, data.heldout.values]) * data.std + data.mean
    assert {item.tobytes() for item in np.rint(restored).astype(np.uint8)} == {
        item.tobytes() for item in whole
    }
    np.testing.assert_array_equal(data.train.starts, np.arange(14))
    assert not data.train.slack.any()


def test_items_that_are_clips_already(tmp_path):
    for name in "ab":
        np.save(tmp_path / name, np.random.default_rng(0).random((4, 3, 11)))
    data = load_dataset(config(tmp_path))
    assert (data.example_shape, data.clip_frames) == ((3, 11), None)


def test_digits():
    data = load_dataset(DigitsData(heldout=0.1))
    assert data.example_shape == (1, 8, 8)
    assert (len(data.train), len(data.heldout)) == (1617, 180)
    assert data.warnings == ()


def test_an_equal_config_gets_the_same_object(tmp_path, builds):
    write_sequences(tmp_path / "in", [20, 20])
    first = load_dataset(config(tmp_path / "in"))
    shutil.rmtree(tmp_path / "in")
    assert load_dataset(config(tmp_path / "in")) is first
    assert len(builds) == 1


def test_another_process_reads_the_cache(tmp_path, builds, forget):
    write_sequences(tmp_path / "in", [20, 20])
    first = load_dataset(config(tmp_path / "in"))
    forget()
    second = load_dataset(config(tmp_path / "in"))
    assert second is not first
    assert second.fingerprint == first.fingerprint
    assert isinstance(second.train.values, np.memmap)
    np.testing.assert_array_equal(second.train.values, first.train.values)
    assert len(builds) == 1


def test_unchanged_files_are_not_hashed_again(tmp_path, forget, monkeypatch):
    write_sequences(tmp_path / "in", [20, 20])
    monkeypatch.setattr(folder, "_FRESH", -1.0)  # as if the files had been written long ago
    first = load_dataset(config(tmp_path / "in"))
    forget()
    monkeypatch.setattr(folder, "_hash_file", lambda path: pytest.fail(f"hashed {path}"))
    assert load_dataset(config(tmp_path / "in")).fingerprint == first.fingerprint


def test_content_and_settings_make_the_fingerprint(tmp_path, forget):
    write_sequences(tmp_path / "in", [20, 20, 20])
    first = load_dataset(config(tmp_path / "in")).fingerprint
    moved = write_sequences(tmp_path / "moved", [20, 20, 20])
    assert load_dataset(config(moved)).fingerprint == first
    assert load_dataset(config(tmp_path / "in", split_seed=1)).fingerprint != first
    forget()
    changed = np.load(tmp_path / "in" / "001.npy")
    changed[3, 0] += 1
    np.save(tmp_path / "in" / "001.npy", changed)  # of the same size, within the same second
    assert load_dataset(config(tmp_path / "in")).fingerprint != first


@pytest.mark.parametrize("harm", ["cut", "missing"])
@pytest.mark.parametrize("name", ["train.npy", "heldout_starts.npy", "meta.json"])
def test_a_damaged_entry_is_built_again(tmp_path, cache, forget, name, harm):
    write_sequences(tmp_path / "in", [20, 20])
    first = load_dataset(config(tmp_path / "in"))
    expected = np.array(first.train.values)
    victim = cache / "datasets" / first.fingerprint / name
    if harm == "cut":
        victim.write_bytes(victim.read_bytes()[:-3])
    else:
        victim.unlink()
    forget()
    np.testing.assert_array_equal(load_dataset(config(tmp_path / "in")).train.values, expected)
    assert victim.exists()


def test_what_a_killed_process_left_is_cleared(tmp_path, cache, forget):
    write_sequences(tmp_path / "in", [20, 20])
    first = load_dataset(config(tmp_path / "in"))
    entry = cache / "datasets" / first.fingerprint
    entry.rename(entry.with_name(f"{entry.name}.draft"))
    forget()
    load_dataset(config(tmp_path / "in"))
    assert sorted(path.name for path in entry.parent.iterdir()) == [
        entry.name,
        f"{entry.name}.lock",
    ]


def _load_and_report(folder: Path, barrier, results) -> None:
    built = []
    real = assemble.assemble
    dataset.assemble = lambda *arguments: (built.append(1), real(*arguments))[1]
    barrier.wait()
    data = load_dataset(config(folder))
    results.put((len(built), data.fingerprint, float(np.abs(data.train.values).sum())))


def test_two_processes_build_once(tmp_path, cache):
    write_sequences(tmp_path / "in", [400] * 60)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    arguments = (tmp_path / "in", barrier, results)
    processes = [context.Process(target=_load_and_report, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    reports = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert sorted(report[0] for report in reports) == [0, 1]
    assert reports[0][1:] == reports[1][1:]
    assert len([path for path in (cache / "datasets").iterdir() if path.is_dir()]) == 1


def test_a_full_disk_is_one_line(tmp_path, cache, refused, monkeypatch):
    write_sequences(tmp_path / "in", [20, 20])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(assemble, "_write_values", full)
    with refused(str(cache), "No space left on device", "VQTUNE_CACHE"):
        load_dataset(config(tmp_path / "in"))
    assert not [path for path in (cache / "datasets").iterdir() if path.is_dir()]


def test_a_cache_that_is_no_folder_is_one_line(tmp_path, refused):
    write_sequences(tmp_path / "in", [20, 20])
    (tmp_path / "file").touch()
    with refused("VQTUNE_CACHE"):
        load_dataset(config(tmp_path / "in"), cache=tmp_path / "file")


def test_the_cache_lies_where_the_environment_says(tmp_path, monkeypatch):
    from trainables.data.cache import default_cache

    monkeypatch.delenv("VQTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "vqtune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "vqtune"


def test_a_constant_cannot_be_normalised(tmp_path, refused):
    for name in "ab":
        np.save(tmp_path / name, np.full((100, 3), 0.1, np.float32))
    with refused(str(tmp_path), "0.1"):
        load_dataset(config(tmp_path))


def test_values_far_from_zero_keep_their_scale(tmp_path):
    generator = np.random.default_rng(0)
    for name in "ab":
        np.save(tmp_path / name, 1e3 + 0.1 * generator.standard_normal((500, 3)))
    data = load_dataset(config(tmp_path))
    assert data.std == pytest.approx(0.1, rel=0.05)
    assert data.train.values.std() == pytest.approx(1, abs=1e-3)
