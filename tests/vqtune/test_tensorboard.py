"""TensorBoard's files, read by its format with another checksum than that which wrote them."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from tests.vqtune.conftest import ENDINGS, Mixed
from trainables.config import TrialConfig
from vqtune.run_folder import RunFolder
from vqtune.tensorboard import TensorBoard

TRIAL = TrialConfig.from_dict({"training": {"samples": 320}}).to_dict()


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC, bit by bit, as RFC 3720 has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> int:
    crc = crc32c(data)
    return ((crc >> 15 | (crc << 17) & 0xFFFFFFFF) + 0xA282EAD8) % 2**32


def test_the_checksum_is_castagnolis() -> None:
    """Against the value that RFC 3720 gives for 32 zeros."""
    assert crc32c(bytes(32)) == 0x8A9136AA


def events(folder: Path) -> Iterator[Event]:
    [path] = folder.iterdir()
    assert "tfevents" in path.name
    data, place = path.read_bytes(), 0
    while place < len(data):
        length, checksum = struct.unpack_from("<QI", data, place)
        assert checksum == masked(data[place : place + 8])
        content = data[place + 12 : place + 12 + length]
        assert len(content) == length
        place += 12 + length
        assert struct.unpack_from("<I", data, place) == (masked(content),)
        place += 4
        event = Event()
        event.ParseFromString(content)
        yield event


class Board:
    """What TensorBoard would show of one run."""

    def __init__(self, folder: Path) -> None:
        self.points: list[tuple[int, str, float]] = []
        self.texts: dict[str, str] = {}
        self.hparams: dict[str, Any] = {}
        self.metrics: list[str] = []
        self.ends = 0
        found = list(events(folder))
        assert found[0].file_version == "brain.Event:2"
        assert all(event.wall_time > 1e9 for event in found)
        for event in found[1:]:
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    self.points.append((event.step, value.tag, value.simple_value))
                elif value.metadata.plugin_data.plugin_name == "text":
                    self.texts[value.tag] = value.tensor.string_val[0].decode()
                else:
                    self._hparams(value.metadata.plugin_data)

    def _hparams(self, plugin: Any) -> None:
        assert plugin.plugin_name == "hparams"
        data = HParamsPluginData()
        data.ParseFromString(plugin.content)
        self.ends += data.HasField("session_end_info")
        self.metrics += [info.name.tag for info in data.experiment.metric_infos]
        for key, value in data.session_start_info.hparams.items():
            assert key not in self.hparams
            self.hparams[key] = getattr(value, value.WhichOneof("kind"))

    def curve(self, tag: str) -> list[tuple[int, float]]:
        return [(step, value) for step, name, value in self.points if name == tag]


@pytest.mark.parametrize("trial_id", ENDINGS)
def test_a_trial_as_tensorboard_shows_it(trial_id: str, mixed: Mixed) -> None:
    board = Board(mixed.run / "tensorboard" / trial_id)
    reports = mixed.reports(trial_id) if ENDINGS[trial_id] != "failed" else []
    for name in ("perplexity", "recon_loss", "usage", "training/recon_loss", "seconds"):
        wanted = [(report["samples"], np.float32(report[name])) for report in reports]
        np.testing.assert_array_equal(
            np.array(board.curve(name)).reshape(-1, 2), np.array(wanted).reshape(-1, 2)
        )
    assert not {name for _, name, _ in board.points} & {"done", "complete", "pid", "snapshot"}
    config = mixed.records.configs[trial_id]
    assert board.hparams["codebook.size"] == config["codebook"]["size"] == 16
    assert board.hparams["model.arguments.ending"] == config["model"]["arguments"]["ending"]
    assert board.hparams["role"] == ("baseline" if trial_id == "baseline" else "search")
    assert board.metrics == ["perplexity", "recon_loss"]
    assert board.texts["state/text_summary"].split(":")[0] == ENDINGS[trial_id]
    assert board.ends == 1


# --- sessions -----------------------------------------------------------------------------------


def report(samples: int) -> dict[str, Any]:
    return {
        "trial_id": "t0001",
        "samples": samples,
        "perplexity": 2.0,
        "recon_loss": 1 / samples,
        "diverged": False,
        "reason": "",
        "complete": samples == 320,
    }


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with a trial that has reported twice, of which TensorBoard was told nothing."""
    folder = tmp_path / "trials" / "t0001"
    folder.mkdir(parents=True)
    (tmp_path / "spec.yaml").write_text("objectives: {perplexity: max, recon_loss: min}\n")
    given = {"trial_id": "t0001", "role": "search", "trial": TRIAL}
    (folder / "params.json").write_text(json.dumps(given))
    lines = [json.dumps({**report(n), "timestamp": 1.7e9 + n, "done": False}) for n in (80, 160)]
    (folder / "result.json").write_text("\n".join(lines) + "\n")
    return RunFolder(tmp_path)


def session(run: RunFolder, reports: tuple[int, ...], end: bool) -> None:
    board = TensorBoard(run, {"perplexity": "max", "recon_loss": "min"}, pytest.fail)
    config = {"trial_id": "t0001", "role": "search", "trial": TRIAL}
    trial = SimpleNamespace(config=config, last_result={}, error_file=None)
    if reports:
        board.on_trial_start(0, [], trial)
    for samples in reports:
        board.on_trial_result(0, [], trial, report(samples))
        trial.last_result = report(samples)
    if end:
        board.on_trial_complete(0, [], trial)
    board.close()


def test_what_an_earlier_session_recorded_is_caught_up_with(run: RunFolder) -> None:
    session(run, (), end=False)
    board = Board(run.path / "tensorboard" / "t0001")
    assert [step for step, _ in board.curve("recon_loss")] == [80, 160]
    assert board.ends == 0


def test_a_resumed_trial_goes_on_without_double_points(run: RunFolder) -> None:
    session(run, (160, 240), end=False)
    session(run, (240, 320), end=True)
    session(run, (320,), end=True)
    board = Board(run.path / "tensorboard" / "t0001")
    assert [step for step, _ in board.curve("recon_loss")] == [80, 160, 240, 320]
    assert board.ends == 1
    assert board.texts == {"state/text_summary": "complete"}


@pytest.mark.parametrize("cut", [1, 5, 11, 12, 40, 200])
def test_half_an_event_is_written_over(run: RunFolder, cut: int) -> None:
    session(run, (), end=False)
    [path] = (run.path / "tensorboard" / "t0001").iterdir()
    path.write_bytes(path.read_bytes()[:-cut])
    session(run, (160, 240), end=False)
    board = Board(run.path / "tensorboard" / "t0001")
    assert [step for step, _ in board.curve("recon_loss")] == [80, 160, 240]


def test_a_damaged_file_is_kept_up_to_the_damage(run: RunFolder) -> None:
    session(run, (160, 240), end=False)
    [path] = (run.path / "tensorboard" / "t0001").iterdir()
    data = bytearray(path.read_bytes())
    data[-30] ^= 255
    path.write_bytes(data)
    session(run, (240, 320), end=True)
    board = Board(run.path / "tensorboard" / "t0001")
    assert [step for step, _ in board.curve("recon_loss")] == [80, 160, 240, 320]


def test_a_folder_that_cannot_be_written_is_told_once(run: RunFolder) -> None:
    (run.path / "tensorboard").write_text("")
    told: list[str] = []
    board = TensorBoard(run, {"perplexity": "max"}, told.append)
    board.close()
    [line] = told
    assert line.startswith("TensorBoard: ")
    assert "\n" not in line


def test_a_finished_run_is_left_alone(mixed: Mixed, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(mixed.run, tmp_path / "copy"))
    before = {p: p.read_bytes() for p in (copy / "tensorboard").rglob("events*")}
    TensorBoard(RunFolder(copy), {"perplexity": "max"}, pytest.fail).close()
    assert {p: p.read_bytes() for p in (copy / "tensorboard").rglob("events*")} == before
