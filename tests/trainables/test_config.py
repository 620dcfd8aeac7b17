"""A config survives YAML unchanged, bad input ends in one line, the signature is what it claims."""

from __future__ import annotations

import builtins
import contextlib
import itertools
import math
import pkgutil
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import annotated_types as limits
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

import trainables
from tests.trainables.conftest import make_config, make_dataset
from trainables.config import TrialConfig
from trainables.config_block import Block, is_lane_field
from trainables.config_codebook import REFUSED, CodebookConfig
from trainables.errors import InputError
from trainables.stack import Stack
from trainables.yaml_file import read_mapping, yaml_text

# --- every config there is, drawn from the fields themselves -------------------------------------

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def bounds(metadata: list[Any]) -> tuple[Any, Any, bool, bool]:
    """Least and most of a number, and whether each is excluded."""
    low = high = None
    open_low = open_high = False
    for limit in metadata:
        match limit:
            case limits.Ge(ge):
                low = ge
            case limits.Gt(gt):
                low, open_low = gt, True
            case limits.Le(le):
                high = le
            case limits.Lt(lt):
                high, open_high = lt, True
    return low, high, open_low, open_high


def numbers_of(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Numbers within a field's limits."""
    low, high, open_low, open_high = bounds(metadata)
    if annotation is int:
        return st.integers(low + open_low, high - 1 if open_high else high)
    high = 1e300 if high is None else high
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high, allow_subnormal=False)


def values_of(annotation: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    """Values that a field takes, as a YAML file would hold them."""
    inner = get_args(annotation)
    match get_origin(annotation) or annotation:
        case typing.Union | types.UnionType:
            found = st.one_of([values_of(part, metadata) for part in inner])
        case typing.Literal:
            found = st.sampled_from(inner)
        case builtins.dict:
            found = st.dictionaries(st.text(), plain_values, max_size=3)
        case builtins.tuple:
            part, field = get_args(inner[0])
            least = max(
                [limit.min_length for limit in metadata if isinstance(limit, limits.MinLen)] or [0]
            )
            found = st.lists(values_of(part, field.metadata), min_size=least, max_size=3)
        case builtins.int | builtins.float:
            found = numbers_of(annotation, metadata)
        case builtins.bool:
            found = st.booleans()
        case builtins.str:
            found = st.text(min_size=1)
        case types.NoneType:
            found = st.none()
        case _:
            found = blocks_of(annotation)
    return found


def blocks_of(block: type[Block]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings with any of the fields that may be left out."""
    required, optional = {}, {}
    for name, field in block.model_fields.items():
        strategy = values_of(field.annotation, list(field.metadata))
        if name == "factory":
            strategy = st.from_regex(r"\A[a-zé_0-9.]+:[A-Z_0-9]+\Z")
        kept = required if field.is_required() or name == "kind" else optional
        kept[name] = strategy
    return st.fixed_dictionaries(required, optional=optional)


def possible(values: dict[str, Any]) -> dict[str, Any]:
    """Settle what two fields must agree on."""
    book = values.get("codebook", {})
    update = book.get("update", {})
    kind = update.get("kind", "gradient")
    for first, others, _ in REFUSED:
        if kind == first or book.get(first) is not None:
            book |= {other: None for other in others if book.get(other) is not None}
    if kind == "fsq":
        levels = update.setdefault("levels", [8, 8, 8])
        while math.prod(levels) > 1_048_576:
            levels.pop()
        book["size"] = math.prod(levels)
    if kind == "lfq":
        book["size"] = 1 << max(book.get("size", 512).bit_length() - 1, 1)
    size = book.get("size", 512)
    if book.get("growth") is not None:
        start = min(book["growth"].get("start", 64), size)
        book["growth"]["start"] = size = start
    if book.get("kmeans") is not None:
        book["kmeans"]["latents"] = max(book["kmeans"].get("latents", 16_384), size)
    # Each of the groups gets a whole number of dimensions, open ones too.
    count = book["groups"].get("count", 2) if book.get("groups") is not None else 1
    low = book.get("low_dim") is not None
    block, default = (book["low_dim"], 8) if low else (book, 64)
    block["dim"] = dim = whole(block.get("dim", default), count)
    if book.get("dim_growth") is not None:
        start = min(book["dim_growth"].get("start", 8), dim)
        book["dim_growth"]["start"] = whole(start, count)
    return values


def whole(number: int, parts: int) -> int:
    """A multiple of `parts` near a number, at least one each."""
    return max(number // parts, 1) * parts


configs = blocks_of(TrialConfig).map(possible)


@settings(deadline=None, max_examples=150)
@given(values=configs)
@example(values={"data": {"kind": "audio", "path": "1e3"}})
@example(values={"data": {"kind": "audio", "path": "-.5"}})
@example(values={"data": {"kind": "images", "path": "2024-01-01"}})
@example(values={"data": {"kind": "arrays", "path": "off"}})
@example(values={"data": {"kind": "arrays", "path": "0o17"}})
@example(values={"model": {"strides": [2, 1, 4]}, "codebook": {"entropy": None}})
@example(values={"codebook": {"growth": {}, "kmeans": {}, "respawn": {}, "update": {}}})
@example(values={"codebook": {"update": {"kind": "fsq", "levels": [8, 64]}, "groups": {}}})
@example(values={"codebook": {"normalization": {}, "residual": {}, "low_dim": {}}})
@example(values={"model": {"kind": "hierarchical", "top_strides": [2, 4]}})
def test_yaml_gives_the_same_config_back(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = TrialConfig.from_dict(values)
    path = tmp_path_factory.mktemp("round", numbered=True) / "trial.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = TrialConfig.from_yaml(path)
    assert again == config
    assert again.to_dict() == config.to_dict()
    assert again.signature() == config.signature()


def test_what_was_given_is_what_is_kept() -> None:
    values = {
        "seed": 7,
        "data": {"kind": "factory", "factory": "made:arrays", "arguments": {"n": [1, 0.5, None]}},
        "model": {"kind": "conv", "strides": [2, 3]},
        "codebook": {"entropy": None, "growth": {"start": 8, "at": 1}},
        "provenance": {"run": "first", "rank": 1},
    }
    kept = TrialConfig.from_dict(values).to_dict()
    assert kept["seed"] == 7
    assert kept["data"]["arguments"] == {"n": [1, 0.5, None]}
    assert kept["model"] == {
        "kind": "conv",
        "width": 128,
        "depth": 2,
        "kernel": 3,
        "strides": [2, 3],
    }
    assert kept["codebook"]["growth"] == {"start": 8, "at": 1.0, "jitter": 0.01}
    assert kept["provenance"] == {"run": "first", "rank": 1}
    assert "provenance" not in TrialConfig().to_dict()


# --- bad input -----------------------------------------------------------------------------------

FACTORY = {"kind": "factory", "factory": "made:arrays"}

BAD: list[tuple[dict[str, Any], str]] = [
    # Unknown keys, at every depth.
    ({"sead": 1}, "sead: unknown key; allowed: seed, data, model, codebook, training, evaluation"),
    ({"codebook": {"sise": 8}}, "codebook.sise: unknown key; allowed: size, dim, update"),
    (
        {"codebook": {"update": {"kind": "ema", "weight": 1.0}}},
        "codebook.update.weight: unknown key; allowed: kind, decay, accumulate",
    ),
    (
        {"codebook": {"update": {"decay": 0.9}}},
        "codebook.update.decay: unknown key; allowed: kind, weight, lr_ratio",
    ),
    (
        {"codebook": {"respawn": {"tau": 1}}},
        "codebook.respawn.tau: unknown key; allowed: period, threshold, buffer, jitter",
    ),
    (
        {"data": {"features": {"bands": 80}}},
        "data.features.bands: unknown key; allowed: sample_rate, mels",
    ),
    (
        {"data": {"kind": "digits", "clip_frames": 8}},
        "data.clip_frames: unknown key; allowed: heldout, split_seed, kind",
    ),
    (
        {"model": {"kind": "factory", "factory": "a:b", "width": 8}},
        "model.width: unknown key; allowed: kind, factory, arguments",
    ),
    # Wrong types; nothing is converted on the quiet.
    ({"seed": True}, "seed: found True; allowed: a valid integer"),
    ({"seed": 1.0}, "seed: found 1.0; allowed: a valid integer"),
    ({"seed": "1"}, "seed: found '1'; allowed: a valid integer"),
    ({"codebook": {"size": False}}, "codebook.size: found False; allowed: a valid integer"),
    ({"training": {"samples": 2e4}}, "training.samples: found 20000.0; allowed: a valid integer"),
    (
        {"codebook": {"commitment": {"beta": True}}},
        "codebook.commitment.beta: found True; allowed: a valid number",
    ),
    (
        {"codebook": {"entropy": {"weight": "off"}}},
        "codebook.entropy.weight: found 'off'; allowed: a valid number",
    ),
    ({"codebook": {"entropy": True}}, "codebook.entropy: found True; allowed: a valid dictionary"),
    ({"codebook": {"commitment": None}}, "codebook.commitment: found None; allowed: a valid dic"),
    ({"codebook": [1]}, "codebook: found list; allowed: a valid dictionary"),
    ({"data": "synthetic"}, "data: found 'synthetic'; allowed: a valid dictionary"),
    ({"model": {"kernel": True}}, "model.kernel: found True; allowed: a valid integer"),
    ({"model": {"kernel": 3.0}}, "model.kernel: found 3.0; allowed: a valid integer"),
    ({"model": {"strides": 2}}, "model.strides: found 2; allowed: a valid tuple"),
    ({"model": {"strides": [2, True]}}, "model.strides.1: found True; allowed: a valid integer"),
    ({"model": {"strides": ["2"]}}, "model.strides.0: found '2'; allowed: a valid integer"),
    ({"data": {3: 4}}, "data.3: found 3; allowed: Keys should be strings"),
    # Values out of range.
    ({"seed": -1}, "seed: found -1; allowed: greater than or equal to 0"),
    ({"seed": 2**31}, f"seed: found {2**31}; allowed: less than {2**31}"),
    ({"codebook": {"size": 0}}, "codebook.size: found 0; allowed: greater than or equal to 1"),
    (
        {"codebook": {"commitment": {"beta": -0.25}}},
        "codebook.commitment.beta: found -0.25; allowed: greater than or equal to 0",
    ),
    (
        {"codebook": {"commitment": {"beta": math.nan}}},
        "codebook.commitment.beta: found nan; allowed: a finite number",
    ),
    ({"training": {"lr": math.inf}}, "training.lr: found inf; allowed: a finite number"),
    (
        {"codebook": {"update": {"kind": "ema", "decay": 1.0}}},
        "codebook.update.decay: found 1.0; allowed: less than 1",
    ),
    ({"model": {"kernel": 4}}, "model.kernel: found 4; allowed: 1, 3, 5, 7 or 9"),
    ({"model": {"strides": [2, 0]}}, "model.strides.1: found 0; allowed: greater than or equal"),
    (
        {"training": {"precision": "float16"}},
        "training.precision: found 'float16'; allowed: 'auto', 'float32', 'float64' or 'bfloat16'",
    ),
    # Kinds.
    ({"codebook": {"update": {"kind": "sgd"}}}, "codebook.update.kind: found sgd; allowed: 'grad"),
    (
        {"data": {"kind": "video"}},
        "data.kind: found video; allowed: 'synthetic', 'digits', 'audio', 'images', 'arrays', 'fa",
    ),
    ({"model": {"kind": None}}, "model.kind: found None; allowed: 'conv', 'hierarchical', 'fact"),
    (
        {"codebook": {"normalization": {"kind": "group"}}},
        "codebook.normalization.kind: found group; allowed: 'batch', 'layer'",
    ),
    (
        {"codebook": {"normalization": {"kind": "layer", "momentum": 0.1}}},
        "codebook.normalization.momentum: unknown key; allowed: kind",
    ),
    (
        {"codebook": {"normalization": {"momentum": 0}}},
        "codebook.normalization.momentum: found 0; allowed: greater than 0",
    ),
    (
        {"codebook": {"normalization": True}},
        "codebook.normalization: found True; allowed: a valid dictionary",
    ),
    (
        {"codebook": {"update": {"kind": "fsq", "levels": [8, 1]}}},
        "codebook.update.levels.1: found 1; allowed: greater than or equal to 2",
    ),
    (
        {"codebook": {"update": {"kind": "fsq", "levels": [8, True]}}},
        "codebook.update.levels.1: found True; allowed: a valid integer",
    ),
    (
        {"codebook": {"update": {"kind": "fsq", "levels": []}}},
        "codebook.update.levels: found list; allowed: Tuple should have at least 1 item",
    ),
    (
        {"codebook": {"update": {"kind": "lfq", "bits": 9}}},
        "codebook.update.bits: unknown key; allowed: kind",
    ),
    (
        {"model": {"kind": "hierarchical", "top_strides": []}},
        "model.top_strides: found list; allowed: Tuple should have at least 1 item",
    ),
    (
        {"codebook": {"residual": {"dropout": 1.5}}},
        "codebook.residual.dropout: found 1.5; allowed: less than or equal to 1",
    ),
    (
        {"training": {"warmup": 2}},
        "training.warmup: found 2; allowed: less than or equal to 1",
    ),
    # What a kind requires.
    ({"data": {"kind": "audio"}}, "data.path: required and missing"),
    ({"data": {"kind": "arrays", "path": ""}}, "data.path: found ''; allowed: String should have"),
    ({"model": {"kind": "factory"}}, "model.factory: required and missing"),
    (
        {"model": {"kind": "factory", "factory": "just_a_name"}},
        "model.factory: found 'just_a_name'; allowed: String should match pattern",
    ),
    ({"data": {"kind": "factory", "factory": "a b:c"}}, "data.factory: found 'a b:c'; allowed"),
    # What two fields must agree on.
    (
        {"codebook": {"size": 32, "growth": {"start": 33}}},
        "codebook.growth.start: found 33, allowed at most codebook.size = 32",
    ),
    (
        {"codebook": {"size": 64, "kmeans": {"latents": 63}}},
        "codebook.kmeans.latents: found 63, allowed at least the 64 codes to seed",
    ),
    (
        {"codebook": {"size": 64, "kmeans": {"latents": 7}, "growth": {"start": 8}}},
        "codebook.kmeans.latents: found 7, allowed at least the 8 codes to seed",
    ),
    (
        {"codebook": {"size": 256, "update": {"kind": "fsq"}}},
        "codebook.size: found 256, allowed with fsq: the product of its levels = 512",
    ),
    (
        {"codebook": {"size": 500, "update": {"kind": "lfq"}}},
        "codebook.size: found 500, allowed with lfq: a power of 2, from 2 up",
    ),
    (
        {"codebook": {"size": 1, "update": {"kind": "lfq"}}},
        "codebook.size: found 1, allowed with lfq: a power of 2, from 2 up",
    ),
    (
        {"codebook": {"groups": {"count": 3}}},
        "codebook.groups.count: found 3, allowed: a divisor of codebook.dim = 64",
    ),
    (
        {"codebook": {"groups": {"count": 16}, "low_dim": {}}},
        "codebook.groups.count: found 16, allowed: a divisor of codebook.low_dim.dim = 8",
    ),
    (
        {"codebook": {"dim": 4, "dim_growth": {}}},
        "codebook.dim_growth.start: found 8, allowed at most codebook.dim = 4",
    ),
    (
        {"codebook": {"dim_growth": {"start": 16}, "low_dim": {}}},
        "codebook.dim_growth.start: found 16, allowed at most codebook.low_dim.dim = 8",
    ),
    (
        {"codebook": {"dim_growth": {"start": 6}, "groups": {"count": 4}}},
        "codebook.dim_growth.start: found 6, allowed at most codebook.dim = 64 and a multiple of "
        "codebook.groups.count = 4",
    ),
    # Free-form values must survive YAML and JSON.
    (
        {"data": {**FACTORY, "arguments": {"x": math.nan}}},
        "data.arguments.x: found nan; allowed: a finite number",
    ),
    (
        {"data": {**FACTORY, "arguments": {"model": {"y": [{"z": {1, 2}}]}}}},
        "data.arguments.model.y.0.z: found {1, 2}; allowed: plain values",
    ),
    ({"provenance": {"x": {1: 2}}}, "provenance.x.1: found 1; allowed: a valid string"),
    # Several at once: the first, and how many more.
    (
        {"codebook": {"entropy": {"weight": -1, "temperature": 0}}},
        "codebook.entropy.weight: found -1; allowed: greater than or equal to 0 (and 1 more)",
    ),
]


@pytest.mark.parametrize(("values", "line"), BAD, ids=[line.split(";")[0] for _, line in BAD])
def test_bad_input_is_one_line_with_path_found_and_allowed(
    values: dict[str, Any], line: str
) -> None:
    with pytest.raises(InputError) as caught:
        TrialConfig.from_dict(values, "trial.yaml")
    assert str(caught.value).startswith(f"trial.yaml: {line}")
    assert str(caught.value).isprintable()


PAIRS = [(first, other, reason) for first, others, reason in REFUSED for other in others]


@pytest.mark.parametrize(
    ("first", "other", "reason"), PAIRS, ids=[f"{first}-{other}" for first, other, _ in PAIRS]
)
def test_techniques_that_cannot_act_together_are_refused_with_the_reason(
    first: str, other: str, reason: str
) -> None:
    is_kind = first not in CodebookConfig.model_fields
    own = {"update": {"kind": first}} if is_kind else {first: {}}
    for alone in (own, {other: {}}):
        TrialConfig.from_dict({"codebook": alone})
    with pytest.raises(InputError) as caught:
        TrialConfig.from_dict({"codebook": {**own, other: {}}}, "trial.yaml")
    with_own = f"update.kind {first}" if is_kind else first
    line = f"codebook.{other}: found with {with_own}, allowed without it: {reason}"
    assert str(caught.value) == f"trial.yaml: {line}"
    assert len(reason) > 20
    assert line.isprintable()


def test_each_pair_that_is_refused_is_so_once_and_by_a_name_that_exists() -> None:
    assert len({(first, other) for first, other, _ in PAIRS}) == len(PAIRS)
    updates = get_args(CodebookConfig.model_fields["update"].annotation)
    kinds = {update.model_fields["kind"].default for update in updates}
    names = kinds | set(CodebookConfig.model_fields)
    assert {name for first, other, _ in PAIRS for name in (first, other)} <= names


def test_values_that_hold_themselves_are_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InputError, match=r"provenance\.x\.0: found list; allowed: plain values"):
        TrialConfig.from_dict({"provenance": {"x": loop}})


def test_a_long_or_broken_value_stays_one_short_line() -> None:
    with pytest.raises(InputError) as caught:
        TrialConfig.from_dict({"seed": "one\ntwo " * 500})
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 200


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text("codebook:\n  size: 0\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        TrialConfig.from_yaml(path)
    expected = f"{path}: codebook.size: found 0; allowed: greater than or equal to 1"
    assert str(caught.value) == expected


# --- YAML ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E3", 1000.0),
        ("-2.5e+2", -250.0),
        (".5", 0.5),
        ("+.5", 0.5),
        ("1.", 1.0),
        ("12", 12),
        ("-12", -12),
        ("010", 10),
        ("24_000", 24_000),
        ("0x1F", 31),
        ("0o17", 15),
        ("-.inf", -math.inf),
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("y", "y"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("none", "none"),
        ("inf", "inf"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("1e", "1e"),
        ("v1", "v1"),
        ("'1e-3'", "1e-3"),
        ("[2, 1e-2, off]", [2, 0.01, "off"]),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"key: {text}\n", encoding="utf-8")
    found = read_mapping(path)
    assert found == {"key": value}
    assert type(found["key"]) is type(value)


@settings(deadline=None, max_examples=150)
@given(values=st.dictionaries(st.text(), plain_values, max_size=4))
@example(values={"1e5": "1e5", "off": "off", "~": "~", "010": "1_0", "+.5": ".5e1", "=": "<<"})
@example(values={"a": "\x85\u2028\ufeff\r\n", "b": " # no comment", "c": "- 1", "d": 1e16})
def test_plain_values_survive_yaml(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("plain", numbered=True) / "file.yaml"
    path.write_text(yaml_text(values), encoding="utf-8")
    again = read_mapping(path)
    assert again == values
    assert repr(again) == repr(values)  # 1 is not 1.0, True is not 1, the order is kept


@pytest.mark.parametrize(
    ("content", "place", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", ":3", "key 'a' appears twice"),
        (b"a:\n  b: 1\n  b: 2\n", ":3", "key 'b' appears twice"),
        (b"a: {b: 1, b: 1}\n", ":1", "key 'b' appears twice"),
        (b"1: 2\n", ":1", "key 1 is not a string; quote it"),
        (b"a:\n  1e-3: 2\n", ":2", "key 0.001 is not a string; quote it"),
        (b"true: 2\n", ":1", "key True is not a string; quote it"),
        (b"null: 2\n", ":1", "key None is not a string; quote it"),
        (b"[1, 2]: 2\n", ":1", "key [1, 2] is not a string; quote it"),
        (b"a: [1, 2\n", ":2", "expected ',' or ']', but got '<stream end>'"),
        (b"a: b: c\n", ":1", "mapping values are not allowed here"),
        (b"a: *nowhere\n", ":1", "found undefined alias 'nowhere'"),
        (b"a: 1\n---\nb: 2\n", ":2", "but found another document"),
        (b"a: !!python/object:os.system x\n", ":1", "could not determine a constructor"),
        (b"a: !!timestamp x\n", "", "not valid YAML"),
        (b"a: !!bool perhaps\n", "", "not valid YAML"),
        (b"a: !!float ''\n", "", "not valid YAML"),
        (b"a: \xff\n", "", "can't decode byte 0xff"),
        (b"a: \x00\n", "", "unacceptable character #x0000"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "", "maximum recursion depth exceeded"),
        (b"a: " + b"9" * 5000, "", "4300 digits"),
        (b"- 1\n", "", "expected a mapping, found list"),
        (b"just text\n", "", "expected a mapping, found str"),
        (b"", "", "expected a mapping, but the file is empty"),
        (b" \n\n", "", "expected a mapping, but the file is empty"),
        (b"# seed: 1\n", "", "expected a mapping, but the file is empty except for comments"),
        (b"# seed:\nnull\n", "", "expected a mapping, found null"),
    ],
)
def test_broken_yaml_is_one_line_with_its_place(
    content: bytes, place: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_mapping(path)
    line = str(caught.value)
    assert line.startswith(f"{path}{place}: ")
    assert message in line
    assert line.isprintable()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "nowhere.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ):
        with pytest.raises(InputError) as caught:
            read_mapping(path)
        assert str(caught.value) == f"{path}: cannot be read: {reason}"


# --- signature -----------------------------------------------------------------------------------

# Techniques that replace, seed or weigh codes, and those that change what a lookup sees. Not all at
# once: some exclude each other, and Adam makes rounding errors large where batch norm has left a
# bias no gradient, so lanes would differ from a stack of one by more than they may.
CODES: dict[str, Any] = {
    "entropy": {"temperature": 1.0},
    "sample_entropy": {"temperature": 1.0},
    "rotation": {},
    "respawn": {"period": 12, "threshold": 0.4, "buffer": 50},
    "least_recent": {"patience": 8},
    "reanchor": {"decay": 0.8},
    "kmeans": {"latents": 100},
    "growth": {"start": 4, "at": 0.4},
}
LAYOUT: dict[str, Any] = {
    "stochastic": {"temperature": 2.0, "until": 0.8},
    "low_dim": {"dim": 4},
    "dim_growth": {"start": 2, "at": 0.4},
    "groups": {"count": 2},
    "residual": {"levels": 2},
}


def base(codebook: dict[str, Any], **blocks: dict[str, Any]) -> dict[str, Any]:
    values = {
        "model": {"kind": "conv", "width": 8, "depth": 1, "strides": [2]},
        "codebook": {"size": 16, "dim": 4, **codebook},
        "training": {"samples": 80, "batch_size": 4, "precision": "float64"},
        "evaluation": {"latents": 64},
        **blocks,
    }
    return TrialConfig.from_dict(values).to_dict()


# Together they hold every block of the config.
BASES = [
    base(CODES),
    base({**CODES, "update": {"kind": "ema", "decay": 0.9}}, data={"kind": "digits"}),
    base(LAYOUT),
    base({"cosine": {}, "normalization": {"kind": "batch"}}),
    base({"normalization": {"kind": "layer"}}),
    base({"update": {"kind": "simvq"}}),
    base({"update": {"kind": "fsq", "levels": [2, 8]}}),
    base({"update": {"kind": "lfq"}}),
    base({}, model={"kind": "hierarchical", "width": 8, "depth": 1}),
    base({}, data={"kind": "audio", "path": "x"}),
    base({}, data={"kind": "images", "path": "x"}),
    base({}, data={"kind": "arrays", "path": "x"}),
    base(
        {}, data={"kind": "factory", "factory": "a:b"}, model={"kind": "factory", "factory": "c:d"}
    ),
]


def fields_of(block: Block, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every field that holds a value, by its path; provenance describes and does not define."""
    for name, field in type(block).model_fields.items():
        value = getattr(block, name)
        if isinstance(value, Block):
            yield from fields_of(value, (*path, name))
        elif name != "provenance" and not (value is None and is_technique(field)):
            yield (*path, name), field


def is_technique(field: FieldInfo) -> bool:
    """Whether a field may hold a block."""

    def blocks_in(annotation: Any) -> bool:
        if isinstance(annotation, type):
            return issubclass(annotation, Block)
        return any(blocks_in(part) for part in get_args(annotation))

    return blocks_in(field.annotation)


def others(field: FieldInfo, name: str, old: Any) -> list[Any]:
    """Other values of a field; what it must agree on with other fields may rule some out."""
    low, high, *_ = bounds(list(field.metadata))
    if get_origin(field.annotation) is Literal:
        return [value for value in get_args(field.annotation) if value != old]
    match old:
        case bool():
            new: list[Any] = [not old]
        case None:
            new = [low + 1]
        case int():
            new = [2 * old + 1, 2 * old] if high is None or 2 * old < high else []
            new.append(old - 1)
        case float():
            new = [old / 2 if old else 0.5 * (high or 1)]
        case str():
            new = ["e:f" if name == "factory" else old + "y"]
        case list():
            new = [[*old, 3], old[::-1]]
        case dict():
            new = [old | {"n": 2}]
    return new


def with_another(name: str) -> tuple[TrialConfig, TrialConfig]:
    """A config, and one that differs in this field alone."""
    values, path, field = CASES[name]
    for new in others(field, path[-1], old_of(values, path)):
        with contextlib.suppress(InputError):
            return TrialConfig.from_dict(values), TrialConfig.from_dict(changed(values, path, new))
    raise AssertionError(name)


def changed(values: Mapping[str, Any], path: tuple[str, ...], new: Any) -> dict[str, Any]:
    name, *rest = path
    return {**values, name: changed(values[name], tuple(rest), new) if rest else new}


def old_of(values: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for name in path:
        values = values[name]
    return values


def cases() -> dict[str, tuple[dict[str, Any], tuple[str, ...], FieldInfo]]:
    found = {}
    for values in BASES:
        for path, field in fields_of(TrialConfig.from_dict(values)):
            if path[-1] != "kind":
                kinds = {"data": values["data"], "model": values["model"]}
                kinds |= {name: values["codebook"][name] for name in ("update", "normalization")}
                inside = [block["kind"] for name, block in kinds.items() if name in path]
                found.setdefault(".".join((*path, *inside)), (values, path, field))
    return found


CASES = cases()
LANE_FIELDS = {
    "seed",
    "training.samples",
    "training.lr",
    "training.warmup",
    "training.lr_final",
    "training.reports",
    "codebook.commitment.beta",
    "codebook.entropy.weight",
    "codebook.entropy.temperature",
    "codebook.sample_entropy.weight",
    "codebook.sample_entropy.temperature",
    "codebook.least_recent.patience",
    "codebook.least_recent.jitter",
    "codebook.reanchor.decay",
    "codebook.respawn.period",
    "codebook.respawn.threshold",
    "codebook.respawn.jitter",
    "codebook.growth.at",
    "codebook.growth.jitter",
    "codebook.update.weight.gradient",
    "codebook.update.lr_ratio.gradient",
    "codebook.update.lr_final.gradient",
    "codebook.update.decay.ema",
    "codebook.update.weight.simvq",
    "codebook.update.lr_ratio.simvq",
    "codebook.update.lr_final.simvq",
    "codebook.stochastic.temperature",
    "codebook.stochastic.until",
    "codebook.dim_growth.at",
    "codebook.normalization.momentum.batch",
    "codebook.residual.dropout",
}


def test_every_block_of_the_config_is_in_the_cases() -> None:
    def blocks(block: type[Block]) -> set[type[Block]]:
        return {block}.union(*(blocks(sub) for sub in block.__subclasses__()))

    def used(block: Block) -> set[type[Block]]:
        values = [getattr(block, name) for name in type(block).model_fields]
        return {type(block)}.union(*(used(v) for v in values if isinstance(v, Block)))

    parts = {module.name for module in pkgutil.iter_modules(trainables.__path__)}
    modules = {f"trainables.{name}" for name in parts if name.startswith("config")}
    ours = {b for b in blocks(Block) if b.__module__ in modules}
    homes = {b.__module__.removeprefix("trainables.config") for b in ours}
    assert homes == {"", "_block", "_data", "_model", "_codebook"}
    seen = set().union(*(used(TrialConfig.from_dict(values)) for values in BASES))
    assert ours - seen == {b for b in ours if b.__subclasses__()}


def test_the_lane_fields_are_these() -> None:
    assert {name for name, (_, _, field) in CASES.items() if is_lane_field(field)} == LANE_FIELDS


@pytest.mark.parametrize("name", CASES)
def test_the_signature_leaves_out_lane_fields_and_nothing_else(name: str) -> None:
    before, after = with_another(name)
    assert before != after
    assert (before.signature() == after.signature()) == is_lane_field(CASES[name][2])


def test_the_signature_tells_kinds_and_absent_techniques_apart() -> None:
    signatures = {TrialConfig.from_dict(values).signature() for values in BASES}
    assert len(signatures) == len(BASES)
    techniques = {name for name, value in CodebookConfig() if value is None}
    on: set[str] = set()
    for values in BASES:
        here = {name for name in techniques if values["codebook"][name] is not None}
        without = [changed(values, ("codebook", name), None) for name in here]
        lacking = {TrialConfig.from_dict(v).signature() for v in without}
        assert len(lacking) == len(here)
        assert TrialConfig.from_dict(values).signature() not in lacking
        on |= here
    assert on == techniques


def test_the_signature_ignores_where_a_config_came_from_and_how_it_was_written() -> None:
    config = TrialConfig.from_dict(BASES[0])
    told = TrialConfig.from_dict({**BASES[0], "provenance": {"run": "x"}})
    backwards = TrialConfig.from_dict(dict(reversed(BASES[0].items())))
    whole = changed(BASES[0], ("data", "features", "fmin"), 0)  # and not 0.0
    assert config.signature() == told.signature() == backwards.signature()
    assert config.signature() == TrialConfig.from_dict(whole).signature()


@pytest.mark.parametrize("name", sorted(LANE_FIELDS - {"training.reports"}))
def test_lanes_may_differ_in_a_lane_field_and_it_acts(name: str) -> None:
    trials = with_another(name)
    dataset, device = make_dataset(), torch.device("cpu")
    together = Stack(trials, dataset, device)
    together.advance(20)
    states, given = [], []
    x = torch.linspace(-1, 1, 3 * 6 * 8, dtype=torch.float64).view(1, 3, 6, 8).sin()
    for lane, trial in enumerate(trials):
        alone = Stack([trial], dataset, device)
        alone.advance(20)
        states.append(alone.lane_state(0))
        given.append(alone.decode(alone.encode(x, lambda quantizer, z: quantizer.unquantized(z))))
        for key, value in together.lane_state(lane).items():
            torch.testing.assert_close(value, states[-1][key], rtol=1e-7, atol=1e-9, msg=key)
    # It has reached what encoder and decoder make of an input, not some counter only.
    assert any(not torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(*given)


def test_a_fixed_field_keeps_trials_apart() -> None:
    slow = make_config({"update": {"kind": "ema", "accumulate": 2}})
    fast = make_config({"update": {"kind": "ema", "accumulate": 1}})
    with pytest.raises(InputError, match="same signature"):
        Stack([slow, fast], make_dataset(), torch.device("cpu"))


@pytest.mark.parametrize("last", ["*i", "&x [*x]"])
def test_a_few_lines_that_stand_for_billions_are_refused(tmp_path: Path, last: str) -> None:
    path = tmp_path / "bomb.yaml"
    names = "abcdefghi"
    lines = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    for before, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]")
    path.write_text("\n".join([*lines, f"provenance: {last}"]))
    with pytest.raises(InputError, match="holds more than 100,000 values"):
        read_mapping(path)


def test_merge_keys_are_merged(tmp_path: Path) -> None:
    path = tmp_path / "merge.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_mapping(path) == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}
