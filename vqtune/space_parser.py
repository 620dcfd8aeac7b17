"""From the `parameters` of a space file to its tree, checked key by key against TrialConfig.

Leaves have the syntax of W&B sweep configs, as far as Optuna can express it exactly. What remains
to be checked by building configs (limits, combinations) is done in `space_check`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from trainables.config import TrialConfig
from trainables.config_block import Block
from vqtune.space_errors import check_keys, did_you_mean, refusal, shown
from vqtune.space_nodes import (
    ROOT,
    Choice,
    Constant,
    Node,
    Option,
    Parameter,
    Range,
    Section,
    inside,
    join,
)

# W&B's distributions that Optuna can express, and the keys that each takes. Optuna has no normal
# distribution, no weights on values, and no range that is both log and quantised. W&B's
# `q_uniform` rounds to multiples of q, so its two ends come up half as often; here they do not.
DISTRIBUTIONS = {
    "constant": {"value"},
    "categorical": {"values"},
    "int_uniform": {"min", "max"},
    "uniform": {"min", "max"},
    "q_uniform": {"min", "max", "q"},
    "log_uniform_values": {"min", "max"},
}
LEAF_KEYS = {"distribution", "value", "values", "min", "max", "q"}
MOST_STEPS = 1_000_000
_LABEL = re.compile(r"[\w-]+")  # brackets, dots and slashes have a meaning in parameter names


def parse(parameters: Mapping[str, Any]) -> Section:
    """Build the tree of a merged `parameters`; an InputError begins with the key path."""
    return _section(parameters, "", TrialConfig)


def is_block(raw: object) -> bool:
    """Whether this is a block of keys, rather than a leaf, a mere `choices` or a plain value."""
    return isinstance(raw, dict) and raw.keys() != {"choices"} and not LEAF_KEYS & raw.keys()


# --- blocks and branches -------------------------------------------------------------------------


def _node(raw: Any, name: str, field: FieldInfo | None) -> Node:
    """One value of the file; `field` is None inside a factory's free-form `arguments`."""
    options = _blocks(field.annotation) if field else []
    if not isinstance(raw, dict):
        nullable = field is not None and NoneType in get_args(field.annotation)
        if options and not (raw is None and nullable):
            raise refusal(name, shown(raw), "a block or choices" + ", or null" * nullable)
        return Constant(raw)
    if raw.keys() == {"choices"} or ("choices" in raw and len(options) != 1):
        return _choices(raw, name, field)
    if LEAF_KEYS & raw.keys():
        return _leaf(raw, name, field)
    if options:
        return _section(raw, name, _block_of_kind(raw, name, field, options))
    if field is None or get_origin(field.annotation) is dict:
        return Section({key: _node(value, join(name, key), None) for key, value in raw.items()})
    check_keys(raw, sorted(LEAF_KEYS), name)
    raise refusal(name, "an empty mapping", "a constant, value, values, or min and max")


def _section(raw: Mapping[str, Any], name: str, block: type[Block]) -> Section:
    fields = {k: f for k, f in block.model_fields.items() if k != "provenance"}
    check_keys(raw, [*fields, "choices"], name)
    children = {
        key: _node(value, join(name, key), fields[key])
        for key, value in raw.items()
        if key != "choices"
    }
    own = Section(children)
    if "choices" not in raw:
        return own
    name = name or ROOT
    branches: dict[Option, Node] = {}
    for label, branch in _labelled(raw["choices"], name):
        if not isinstance(branch, dict) or LEAF_KEYS & branch.keys():
            raise refusal(inside(name, label), shown(branch), "a block; {} for nothing")
        section = _section(branch, inside(name, label), block)
        _check_kept(own, section, inside(name, label))
        branches[label] = section
    return Section(children, Choice(branches, plain=next(iter(branches))))


def _choices(raw: dict[str, Any], name: str, field: FieldInfo | None) -> Choice:
    if len(raw) > 1:
        other = next(key for key in raw if key != "choices")
        raise refusal(name, f"choices mixed with {other!r}", "choices alone")
    nodes: dict[Option, Node] = {}
    for label, branch in _labelled(raw["choices"], name):
        if branch is not None and not is_block(branch):
            raise refusal(
                inside(name, label), shown(branch), "a block or null; for plain values use `values`"
            )
        nodes[label] = _node(branch, inside(name, label), field)
    return Choice(nodes, plain=next(iter(nodes)))


def _labelled(branches: Any, name: str) -> list[tuple[str, Any]]:
    if not isinstance(branches, dict) or not branches:
        raise refusal(
            join(name, "choices"),
            shown(branches) if branches else "nothing to choose from",
            "a mapping of at least one label to a block or null",
        )
    for label in branches:
        if not isinstance(label, str) or not _LABEL.fullmatch(label):
            raise refusal(
                join(name, "choices"), f"label {label!r}", "a string of letters, digits, _ and -"
            )
    return list(branches.items())


def _check_kept(own: Section, branch: Section, name: str) -> None:
    """Refuse a branch that replaces what is searched beside `choices`: it would act for nothing."""
    searched = [path for path, node in _settings(own) if not isinstance(node, Constant)]
    constants = {path: node.value for path, node in _settings(own) if isinstance(node, Constant)}
    for path, node in _settings(branch):
        block, _, key = path.rpartition(".")
        kind = key == "kind" and isinstance(node, Constant) and node.value != constants.get(path)
        replaced = block if kind else path
        for other in searched:
            if f"{other}.".startswith(f"{replaced}.") or replaced.startswith(f"{other}."):
                raise refusal(
                    join(name, path),
                    f"a value in a branch, with {other} searched beside `choices`",
                    "one of the two",
                )


def _settings(node: Node, path: str = "") -> Iterator[tuple[str, Constant | Parameter]]:
    """Every value that a block sets, in whichever branch, by its key path."""
    if not isinstance(node, Section):
        yield path, node
        return
    for key, child in node.children.items():
        yield from _settings(child, join(path, key))
    for branch in node.choice.branches.values() if node.choice else ():
        yield from _settings(branch, path)


def _blocks(annotation: Any) -> list[type[Block]]:
    """List the blocks that a field may hold: none for a scalar, several for a tagged union."""
    if isinstance(annotation, type) and issubclass(annotation, Block):
        return [annotation]
    return [block for part in get_args(annotation) for block in _blocks(part)]


def _block_of_kind(
    raw: dict[str, Any], name: str, field: FieldInfo | None, options: list[type[Block]]
) -> type[Block]:
    if len(options) == 1:
        return options[0]
    kinds = {str(block.model_fields["kind"].default): block for block in options}
    kind = raw.get("kind", getattr(field.default, "kind", None) if field else None)
    if isinstance(kind, dict):
        raise refusal(f"{name}.kind", "a searched kind", "a constant; `choices` searches kinds")
    if kind not in list(kinds):
        raise refusal(f"{name}.kind", shown(kind), ", ".join(kinds) + did_you_mean(kind, kinds))
    return kinds[kind]


# --- leaves --------------------------------------------------------------------------------------


def _leaf(raw: dict[str, Any], name: str, field: FieldInfo | None) -> Node:
    own = sorted(raw.keys() & LEAF_KEYS)
    if raw.keys() - LEAF_KEYS:
        other = next(key for key in raw if key not in LEAF_KEYS)
        allowed = f"either leaf keys only ({', '.join(sorted(LEAF_KEYS))}) or none of them"
        raise refusal(
            join(name, other),
            f"a key mixed with {', '.join(own)}",
            allowed + did_you_mean(other, sorted(LEAF_KEYS)),
        )
    is_null = "value" in raw and raw["value"] is None
    if field and _blocks(field.annotation) and not is_null:
        raise refusal(name, f"a leaf ({', '.join(own)})", "a block, null or choices")
    distribution = _distribution(raw, name, field)
    needed = DISTRIBUTIONS[distribution]
    keys = raw.keys() - {"distribution"}
    if keys != needed and not (distribution == "q_uniform" and keys == {"min", "max"}):
        found = ", ".join(sorted(keys)) or "no value"
        raise refusal(name, found, f"{' and '.join(sorted(needed))} for {distribution}")
    default = None if field is None or field.is_required() else field.default
    if distribution == "constant":
        return Constant(raw["value"])
    if distribution == "categorical":
        return _categorical(raw["values"], name, default)
    return _range(raw, name, field, distribution, default)


def _distribution(raw: dict[str, Any], name: str, field: FieldInfo | None) -> str:
    if "distribution" in raw:
        found = raw["distribution"]
        if found not in list(DISTRIBUTIONS):
            allowed = ", ".join(DISTRIBUTIONS)
            if str(found).startswith("q_log"):
                allowed += " (Optuna has no range that is both log and quantised)"
            else:
                allowed += did_you_mean(found, DISTRIBUTIONS)
            raise refusal(join(name, "distribution"), shown(found), allowed)
        return str(found)
    if "value" in raw or "values" in raw:
        return "constant" if "value" in raw else "categorical"
    if "q" in raw:
        raise refusal(name, "q without a distribution", "q with distribution: q_uniform")
    bounds = [raw.get("min"), raw.get("max")]
    integer = _number(field) is int or (field is None and all(type(b) is int for b in bounds))
    return "int_uniform" if integer else "uniform"


def _categorical(values: Any, name: str, default: Any) -> Choice:
    name = join(name, "values")
    if not isinstance(values, list) or not values:
        found = shown(values) if values != [] else "an empty list"
        raise refusal(name, found, "a list of at least one value")
    nodes: dict[Option, Node] = {}
    for value in values:
        scalar = value is None or isinstance(value, (bool, int, float, str))
        label = value if scalar else json.dumps(value, default=str)
        if label in nodes:  # True equals 1 and 1 equals 1.0, for Optuna as well
            raise refusal(name, f"{shown(value)} twice", "distinct values")
        nodes[label] = Constant(value)
    plain = list(default) if isinstance(default, tuple) else default
    labels = [k for k, node in nodes.items() if isinstance(node, Constant) and node.value == plain]
    return Choice(nodes, plain=labels[0] if labels else next(iter(nodes)))


def _range(
    raw: dict[str, Any], name: str, field: FieldInfo | None, distribution: str, default: Any
) -> Range:
    number = _number(field)
    if field is not None and number is None:
        raise refusal(name, "a range", "value or values, for this is not a number")
    if distribution == "uniform" and number is int:
        raise refusal(
            join(name, "distribution"), "'uniform'", "int_uniform or q_uniform for an integer"
        )
    low, high, step = raw["min"], raw["max"], raw.get("q", 1)
    integer = number is int or distribution == "int_uniform"
    if field is None and distribution in ("q_uniform", "log_uniform_values"):
        integer = all(type(part) is int for part in (low, high, step))
    for key, value in (("min", low), ("max", high), ("q", step)):
        if type(value) is not int and (integer or type(value) is not float):
            allowed = "an integer" if integer else "a number"
            raise refusal(join(name, key), shown(value), allowed)
        if type(value) is float and not math.isfinite(value):
            raise refusal(join(name, key), shown(value), "a finite number")
    if low >= high:
        raise refusal(join(name, "min"), f"{low} with max {high}", "a min below max")
    log = distribution == "log_uniform_values"
    if log and low <= 0:
        raise refusal(join(name, "min"), str(low), "greater than 0 for log_uniform_values")
    if distribution != "q_uniform":
        step = None
    elif step <= 0:
        raise refusal(join(name, "q"), str(step), "greater than 0")
    elif (high - low) / step > MOST_STEPS or not all(_on_grid(end, step) for end in (low, high)):
        raise refusal(
            join(name, "q"),
            f"{step} with min {low} and max {high}",
            f"a divisor of both, with at most {MOST_STEPS} steps between",
        )
    return Range(low, high, _plain(default, low, high, step), integer, log, step)


def _plain(default: Any, low: float, high: float, step: float | None) -> float:
    """Take the default where the range holds it, else the low end."""
    if type(default) not in (int, float) or not low <= default <= high:
        return low
    plain: float = default if step is None or _on_grid(default, step) else low
    return plain


def _on_grid(value: float, step: float) -> bool:
    return Fraction(str(value)) % Fraction(str(step)) == 0  # decimals as written: 0.3 is 3 x 0.1


def _number(field: FieldInfo | None) -> type[int] | type[float] | None:
    """Int or float where the field holds numbers, with or without null."""
    if field is None:
        return None
    union = get_origin(field.annotation) in (Union, UnionType)
    parts = set(get_args(field.annotation)) if union else {field.annotation}
    parts -= {NoneType}
    return int if parts == {int} else float if parts == {float} else None
