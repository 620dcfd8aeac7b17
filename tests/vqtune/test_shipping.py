"""What is sent to a joined cluster: vqtune, the user's own modules, and nothing else of theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune import shipping
from vqtune.shipping import PACKAGES, factories, shipped, user_modules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(*paths: str) -> list[str]:
    return sorted(place.name for place in user_modules(set(paths)))


def test_every_package_is_sent(folder: Path) -> None:
    modules = shipped(set())["py_modules"]
    assert [Path(place).name for place in modules] == list(PACKAGES)
    assert (Path(modules[-1]) / "base.yaml").exists()


def test_a_module_comes_with_what_it_imports_from_beside_it(folder: Path) -> None:
    write(
        folder,
        models="import torch\nfrom layers import Layer\ndef build():\n    import late",
        layers="import blocks.convolution",
        blocks__convolution="",
        blocks__other="",
        late="",
        secrets_of_mine="",
        train="import models",
    )
    (folder / "data").mkdir()
    assert names("models:build") == ["blocks", "late.py", "layers.py", "models.py"]


def test_a_package_is_sent_whole(folder: Path) -> None:
    write(folder, mine____init__="", mine__models="from mine import layers", mine__layers="", a="")
    assert names("mine.models:build") == ["mine"]
    assert names("mine.models:build", "a:b") == ["a.py", "mine"]


def test_modules_of_pythonpath_are_the_users_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder, lib__models="import shared", lib__shared="", other="")
    (folder / "cwd").mkdir()
    monkeypatch.chdir(folder / "cwd")
    assert names("models:build") == []
    monkeypatch.setenv("PYTHONPATH", str(folder / "lib"))
    assert names("models:build") == ["models.py", "shared.py"]


def test_what_is_installed_is_not_sent(folder: Path) -> None:
    """The nodes have it, or lack a dependency and say so."""
    assert names("numpy:zeros", "json:loads", "trainables.model:build", "absent:build") == []
    # A module of the user's that is called as an installed one is not what is imported.
    write(folder, numpy="")
    assert names("numpy:zeros") == []


def test_a_module_that_cannot_be_read_is_sent_and_told_of_where_it_is_imported(
    folder: Path,
) -> None:
    write(folder, models="def (")
    assert names("models:build") == ["models.py"]


def test_too_much_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, mine____init__="")
    (folder / "mine" / "weights.bin").write_bytes(bytes(3 << 20))
    assert names("mine:build") == ["mine"]
    monkeypatch.setattr(shipping, "_MOST_BYTES", 1 << 20)
    with pytest.raises(InputError, match=r"mine: 3 MiB are too much .*; allowed: 1 MiB of modules"):
        user_modules({"mine:build"})


def test_factories_are_found_wherever_they_are_named() -> None:
    config = TrialConfig.from_dict({"data": {"kind": "factory", "factory": "mine:clips"}})
    space = {"parameters": {"model": {"factory": {"values": ["a:build", "b.c:build"]}, "x": "n:o"}}}
    assert factories(config.to_dict(), [space]) == {"mine:clips", "a:build", "b.c:build"}
    assert factories(TrialConfig().to_dict(), 3, None) == set()
