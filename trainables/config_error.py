"""What pydantic complains of, as the one line that a user gets."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ValidationError


def describe(error: ValidationError, root: type[BaseModel]) -> str:
    """One line for the first complaint: key path, what was found, what is allowed.

    Args:
        error: what pydantic raised.
        root: the block that was validated.
    """
    first = error.errors(include_url=False)[0]
    path = ".".join(_written(first["loc"]))
    found = first["input"]
    shown = f"{type(found).__name__}" if isinstance(found, (dict, list)) else repr(found)
    if len(shown) > 80:
        shown = shown[:77] + "..."
    kind = first["type"]
    if kind == "extra_forbidden":
        allowed = _allowed_keys(first["loc"], root)
        return f"{path}: unknown key" + (f"; allowed: {allowed}" if allowed else "")
    if kind == "value_error":
        message = str(first.get("ctx", {}).get("error", first["msg"]))
        # A check that looks at several fields names the one it means.
        return (
            f"{path}{': ' if message.startswith('found ') else '.'}{message}" if path else message
        )
    if kind == "missing":
        return f"{path}: required and missing"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags = first["ctx"].get("expected_tags") or _tags(first["loc"], root)
        found_tag = first["ctx"].get("tag", "nothing")
        return f"{path}.kind: found {found_tag}; allowed: {tags}"
    if kind in ("invalid-json-value", "recursion_loop"):
        return f"{path}: found {shown}; allowed: plain values (numbers, text, lists, mappings)"
    message = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return f"{path}: found {shown}; allowed: {message}{more}"


def _written(loc: tuple[int | str, ...]) -> list[str]:
    # After a discriminated union's field pydantic adds the branch's tag, which nobody wrote, and
    # inside free-form mappings the type of each value.
    free = [i for i, part in enumerate(loc) if part in ("arguments", "provenance")]
    end = free[0] + 1 if free else len(loc)
    unions = ("data", "model", "update", "normalization")
    named = [p for i, p in enumerate(loc[:end]) if i == 0 or loc[i - 1] not in unions]
    return [str(part) for part in (*named, *loc[end::2])]


def _allowed_keys(loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    block: Any = root
    for part in loc[:-1]:
        block = _step_into(block, str(part))
        if block is None:
            return ""
    return ", ".join(block.model_fields)


def _step_into(block: Any, part: str) -> Any:
    options = _blocks_in(block)
    tagged = [option for option in options if _tag(option) == part]
    if tagged:
        return tagged[0]
    for option in options:
        if part in option.model_fields:
            inner = _blocks_in(option.model_fields[part].annotation)
            if inner:
                return inner[0] if len(inner) == 1 else option.model_fields[part].annotation
    return None


def _blocks_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in getattr(annotation, "__args__", ()) for found in _blocks_in(part)]


def _tag(block: type[BaseModel]) -> str | None:
    field = block.model_fields.get("kind")
    return None if field is None else str(field.default)


def _tags(loc: tuple[int | str, ...], root: type[BaseModel]) -> str:
    block: Any = root
    for part in loc:
        block = _step_into(block, str(part))
    return ", ".join(repr(_tag(option)) for option in _blocks_in(block))
