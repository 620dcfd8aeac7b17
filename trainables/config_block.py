"""What all parts of a TrialConfig share: strict blocks, and fields that lanes may differ in."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticKnownError


def lane(default: Any, description: str, **limits: Any) -> Any:
    """A field that may differ between the lanes of one stack."""
    return Field(default, description=description, json_schema_extra={"lane": True}, **limits)


def fixed(default: Any, description: str, **limits: Any) -> Any:
    """A field that fixes shapes or code paths, and so is part of the stack's signature."""
    return Field(default, description=description, **limits)


class Block(BaseModel):
    """A part of the config: unknown keys, NaN and implicit conversions are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


def kind_or(default: str) -> BeforeValidator:
    """Fill in the discriminator of a mapping that leaves it out."""
    return BeforeValidator(
        lambda value: {"kind": default, **value} if isinstance(value, dict) else value
    )


def integer(value: Any) -> Any:
    """Refuse True for 1 and 3.0 for 3, which Literal would take."""
    if type(value) is not int:
        raise PydanticKnownError("int_type")
    return value


def lane_values(block: Block) -> dict[str, Any]:
    """The values of a block's lane fields, by name."""
    fields = type(block).model_fields
    return {name: getattr(block, name) for name, f in fields.items() if is_lane_field(f)}


def is_lane_field(field: FieldInfo) -> bool:
    """Whether lanes of one stack may differ in this field."""
    return isinstance(field.json_schema_extra, dict) and "lane" in field.json_schema_extra
