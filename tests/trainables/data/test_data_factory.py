from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainables.config_data import FactoryData
from trainables.data import load_dataset
from trainables.factory import load_factory

MODULE = """
import numpy as np
import torch

constant = 3


def sequences(count, scale=1.0):
    return {f"s{i}": scale * np.random.default_rng(i).random((20, 3)) for i in range(count)}


def tensors():
    return {"a": torch.arange(60.0).reshape(20, 3), "b": torch.eye(20)[:, :3]}


def raises():
    raise ValueError("first line\\nsecond line")


def a_list():
    return [np.zeros((20, 3))]


def nothing():
    return {}


def lists():
    return {"a": [1, 2]}


def objects():
    return {"a": np.array([[None]])}


def with_gradient():
    return {"a": torch.ones(20, 3, requires_grad=True)}


def short():
    return {"a": np.zeros((3, 3)), "b": np.zeros((3, 3))}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch) -> str:
    """A module of the current folder, named after the test since modules stay imported."""
    name = f"own_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return name


def data(factory: str, **arguments: object) -> FactoryData:
    return FactoryData(factory=factory, arguments=arguments, clip_frames=8)


def test_arrays_of_a_function_of_the_current_folder(module):
    loaded = load_dataset(data(f"{module}:sequences", count=4))
    assert (len(loaded.train), len(loaded.heldout)) == (6, 2)
    assert loaded.example_shape == (3, 8)
    tensors = load_dataset(data(f"{module}:tensors"))
    assert (len(tensors.train), len(tensors.heldout)) == (2, 2)


def test_the_fingerprint_is_of_what_was_returned(module, forget):
    first = load_dataset(data(f"{module}:sequences", count=4)).fingerprint
    forget()
    assert load_dataset(data(f"{module}:sequences", count=4, scale=1.0)).fingerprint == first
    assert load_dataset(data(f"{module}:sequences", count=4, scale=2.0)).fingerprint != first


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        ("missing", ["has no 'missing'"]),
        ("constant", ["found int", "a function"]),
        ("raises", ["ValueError: first line second line", "line 17"]),
        ("sequences", ["TypeError", "'count'"]),
        ("a_list", ["returned list", "a mapping of names to arrays"]),
        ("nothing", ["an empty mapping"]),
        ("lists", ["returned list under 'a'"]),
        ("objects", ["object under 'a'", "real numbers"]),
        ("with_gradient", ["under 'a'", "no plain array"]),
        ("short", ["nothing usable", "2 shorter than a clip of 8 frames (a, b)"]),
    ],
)
def test_errors_name_the_function(module, refused, function, parts):
    with refused(f"{module}:{function}: ", *parts):
        load_dataset(data(f"{module}:{function}"))


def test_modules_that_cannot_be_imported(tmp_path, monkeypatch, refused):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("broken_one.py").write_text("1 / 0")
    Path("needs_more.py").write_text("import surely_not_installed")
    with refused("nowhere_at_all:f: no module 'nowhere_at_all'", str(tmp_path)):
        load_factory("nowhere_at_all:f")
    with refused("os.nowhere:f: ", "no module 'os.nowhere'"):
        load_factory("os.nowhere:f")
    with refused("broken_one:f: importing it raised ZeroDivisionError", "broken_one.py, line 1"):
        load_factory("broken_one:f")
    with refused("needs_more:f: importing it raised ModuleNotFoundError", "surely_not_installed"):
        load_factory("needs_more:f")
