"""YAML in and out, with YAML 1.2's scalars: 1e-3 is a number, `off` and 2024-01-01 are strings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trainables.errors import InputError
from trainables.regular_file import read_regular

# No config, space or spec comes near these.
_MOST_VALUES = 100_000
_MOST_BYTES = 2 * 2**20
_FLOAT = re.compile(
    r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"
)
_INT = re.compile(r"^[-+]?[0-9][0-9_]*$|^0o[0-7]+$|^0x[0-9a-fA-F]+$")
_REPLACED = (":bool", ":int", ":float", ":timestamp")


class _Loader(yaml.SafeLoader):
    """SafeLoader that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is not a string; quote it", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} appears twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > _MOST_VALUES:  # each merge of merges has many times as many
            raise yaml.constructor.ConstructorError(
                None, None, f"merges more than {_MOST_VALUES:,} keys", node.start_mark
            )


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(_REPLACED)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
# Before the floats, so that plain integers stay integers.
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
# YAML 1.1 would read 010 as 8.
_Loader.add_constructor(
    "tag:yaml.org,2002:int",
    lambda _, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10),
)


class _Dumper(yaml.SafeDumper):
    """SafeDumper that also quotes strings which only this file's rules take for numbers."""


_Dumper.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
# Outside of double quotes a reader takes U+0085 for the end of a line.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style='"' if "\x85" in text else None
    ),
)


def read_mapping(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds; raises InputError in one line where it holds none."""
    try:
        text = read_regular(path, _MOST_BYTES).decode()
        values = yaml.load(text, Loader=_Loader)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", str(path)) from None
    except Exception as error:  # PyYAML raises nearly anything at a value that belies its tag
        problem = getattr(error, "problem", None) or str(error)
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"not valid YAML: {problem}", place) from None
    if not isinstance(values, dict):
        raise InputError(f"expected a mapping, {_found(values, text)}", str(path))
    if _more_than(values, _MOST_VALUES):
        raise InputError(f"holds more than {_MOST_VALUES:,} values, aliases told out", str(path))
    return values


def _found(values: Any, text: str) -> str:
    """What there is where a mapping should be, as the end of a sentence."""
    if values is not None:
        return f"found {type(values).__name__}"
    lines = [line.strip() for line in text.splitlines()]
    if any(line and not line.startswith("#") for line in lines):
        return "found null"
    return "but the file is empty" + (" except for comments" if any(lines) else "")


def _more_than(values: Any, most: int) -> bool:
    """Whether nested values are more than `most`; a few lines of aliases can stand for billions."""
    left, seen = [values], 0
    while left:
        value = left.pop()
        seen += 1
        if seen + len(left) > most:
            return True
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


def yaml_text(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, in their order, that `read_mapping` turns back into equal ones."""
    return yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
