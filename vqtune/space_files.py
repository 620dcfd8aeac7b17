"""Space files on disk: where they are, what they extend, and how one is laid over another."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trainables.config import Training
from trainables.config_error import describe
from trainables.errors import InputError
from vqtune.space_errors import did_you_mean, refusal, shown
from vqtune.space_parser import is_block


def shipped() -> dict[str, Path]:
    """List the spaces that come with vqtune: name and file."""
    folder = Path(str(resources.files("search_spaces")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(name_or_path: str, folder: Path) -> Path:
    """Find a shipped space by name, or a file as seen from `folder`."""
    names = shipped()
    if name_or_path in names:
        return names[name_or_path]
    try:
        path = folder / Path(name_or_path).expanduser()
        found = path.is_file()
    except (OSError, RuntimeError):  # a folder that may not be read, a home that is not known
        found = False
    if not found:
        allowed = f"a file, or one of {', '.join(names)}" + did_you_mean(name_or_path, names)
        raise InputError(f"found {name_or_path!r}, which is no file; allowed: {allowed}")
    return path


def extended(values: dict[str, Any], path: Path, chain: tuple[Path, ...]) -> Path | None:
    """Find the file that this one extends; `chain` holds those that extend this one."""
    if "extends" not in values:
        return None
    try:
        inherited = find(values["extends"], path.parent)
    except InputError as error:
        raise InputError(str(error), "extends") from None
    files = [*chain, path]
    if inherited.resolve() in [file.resolve() for file in files]:
        cycle = " -> ".join(file.name for file in [*files, inherited])
        raise refusal("extends", f"the cycle {cycle}", "a chain that ends")
    return inherited


def merge(inherited: Any, over: Any) -> Any:
    """Lay `over` over `inherited`: blocks merge key by key, anything else replaces.

    A block of another `kind` replaces too: the parameters of one kind mean nothing to another. So
    does `choices`: its branches belong together.
    """
    if not is_block(inherited) or not is_block(over):
        return over
    if over.get("kind", inherited.get("kind")) != inherited.get("kind"):
        return over
    return merge_keys(inherited, over)


def merge_keys(inherited: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Lay a block over another; the root of all parameters is one, whatever it holds."""
    merged = {
        key: value if key == "choices" else merge(inherited.get(key), value)
        for key, value in over.items()
    }
    return {**inherited, **merged}


def with_samples(parameters: dict[str, Any], samples: object) -> dict[str, Any]:
    """Move `search.samples` to where a trial reads it, training.samples."""
    try:
        Training.model_validate({"samples": samples})
    except ValidationError as error:
        raise InputError(f"search.{describe(error, Training)}") from None
    training = parameters.get("training", {})
    if not is_block(training):
        raise refusal("training", shown(training), "a block")
    if "samples" in training:
        raise refusal("search.samples", f"{samples} beside training.samples", "one of the two")
    return {**parameters, "training": merge(training, {"samples": samples})}
