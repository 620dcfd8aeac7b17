"""Search spaces: YAML files that say what a search may try, and how it searches.

First station of a search: `load_space` reads a file of `search_spaces` or the user's own, and the
Space suggests TrialConfigs to Optuna, draws them at random, or enumerates them as a grid.
"""

from __future__ import annotations

import copy
import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, field_validator, model_validator

from analysis.constraint import Constraint
from analysis.reported import REPORTED
from trainables.config import TrialConfig
from trainables.config_block import Block
from trainables.config_error import describe
from trainables.errors import InputError
from trainables.yaml_file import read_mapping
from vqtune import space_nodes as nodes
from vqtune.shares import Shares
from vqtune.space_check import check_configs, check_resources, check_shared
from vqtune.space_errors import check_keys, check_shapes, located, refusal
from vqtune.space_files import extended, find, merge_keys, shipped, with_samples
from vqtune.space_nodes import Constant, Option, Parameter, RandomTrial, Section, TrialLike
from vqtune.space_parser import parse
from vqtune.space_starts import check_starts, start_points

# Held-out latents for each code of the largest codebook. The plug-in perplexity of a uniform code
# of 512 is 447 at 4 latents a code, 499 at 20, 509 at 100 (measured).
LATENTS_PER_CODE = 50
LARGEST_GRID = 10_000


class SearchSettings(Block):
    """How a space is searched: the keys of a file's `search`, but for `samples`."""

    trials: int = Field(16, description="trials, the baseline among them", ge=1, le=1_000_000)
    sampler: Literal["tpe", "nsga2", "random", "grid"] = Field(
        "tpe", description="who proposes: multi-objective TPE, NSGA-II, chance, or every point"
    )
    objectives: dict[str, Literal["max", "min"]] = Field(
        default={"perplexity": "max", "recon_loss": "min"},
        description="what is to get better, and which way is better",
    )
    constraint: str | None = Field(
        "recon_loss <= 1.0*baseline", description="what a trial has to hold to count as harmless"
    )
    early_stopping: Literal["pareto", "recon_loss", "perplexity", "none"] = Field(
        "pareto",
        description="what asynchronous successive halving compares: all objectives, or one metric",
    )
    grace: float = Field(
        0.125, description="share of the samples before the first rung", gt=0, lt=1
    )
    reduction_factor: float = Field(
        3.0, description="eta: one trial in eta goes on from each rung", gt=1, le=100
    )
    brackets: int = Field(
        1, description="groups of trials, each with a first rung eta times the last's", ge=1, le=10
    )

    @field_validator("objectives")
    @classmethod
    def _known(cls, objectives: dict[str, Literal["max", "min"]]) -> dict[str, Any]:
        if not objectives:
            raise ValueError("found none; allowed: one metric or more, each max or min")
        for metric in objectives:
            _check_metric(metric)
        return objectives

    @field_validator("constraint")
    @classmethod
    def _readable(cls, constraint: str | None) -> str | None:
        if constraint is None:
            return None
        parsed = Constraint.parse(constraint)
        _check_metric(parsed.metric)
        return str(parsed)

    @model_validator(mode="after")
    def _rungs(self) -> SearchSettings:
        if self.grace * self.reduction_factor ** (self.brackets - 1) >= 1:
            raise ValueError(
                f"brackets: found {self.brackets}, whose last would begin at the end of the "
                f"training; allowed: fewer, or a smaller grace than {self.grace:g}"
            )
        return self


def _check_metric(metric: str) -> None:
    if metric not in REPORTED:
        raise ValueError(
            f"found {metric!r}, which no trial reports; allowed: {', '.join(REPORTED)}"
        )


@dataclass(frozen=True)
class Space:
    """A validated search space; one that cannot be searched is never made.

    Parameters
    ----------
    name : the file's name without its ending
    description : one line for listings
    source : where it was read from, for people to see
    search : how to search it
    parameters : as in the file, laid over all that it extends
    starts : points to try first, as `space_starts` has them; a file does not inherit them
    resources : what a trial takes, by default and by its config, as `shares` has it

    """

    name: str
    description: str
    source: str
    search: SearchSettings
    parameters: dict[str, Any]
    starts: tuple[dict[str, Option], ...] = ()
    resources: Shares = field(default_factory=Shares)

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        check_shared(self.tree)
        check_configs(self.tree, self._resolve)
        self.first_points()
        if self.search.sampler == "grid":
            self.enumerate_grid()
        check_resources(self.resources, self.tree, self.baseline)

    @functools.cached_property
    def tree(self) -> Section:
        """Parse the parameters, once."""
        return parse(self.parameters)

    # --- what it proposes ---

    def suggest(self, trial: TrialLike) -> dict[str, Any]:
        """Ask the trial for every parameter; returns values for TrialConfig.from_dict."""
        return self._resolve(lambda name, parameter: parameter.suggest(name, trial))[0]

    def draw(self, n: int, seed: int = 0) -> list[TrialConfig]:
        """Draw configs at random, each parameter from its distribution."""
        trial = RandomTrial(random.Random(seed))
        return [TrialConfig.from_dict(self.suggest(trial), self.source) for _ in range(n)]

    def baseline(self) -> TrialConfig:
        """Return the plain VQ-VAE that this space's trials are to beat.

        Seed, data, model, training, evaluation, K and d are the space's; where one of them is
        searched, TrialConfig's default if the space allows it, else the first value or the low
        end. Every technique of the codebook is as TrialConfig has it: loss-based update, beta
        0.25, all others off.
        """
        values, _ = self._resolve(lambda _, parameter: parameter.plain)
        codebook = values.get("codebook", {})
        values["codebook"] = {key: codebook[key] for key in ("size", "dim") if key in codebook}
        return TrialConfig.from_dict(values, self.source)

    def first_points(self) -> list[dict[str, Option]]:
        """List the starts as {parameter: option}, for `study.enqueue_trial`."""
        return start_points(self.starts, self.searched(), lambda pick: self._resolve(pick)[0])

    def enumerate_grid(self) -> list[dict[str, Option]]:
        """List every point of a finite space as {parameter: option}, for `study.enqueue_trial`.

        Optuna's GridSampler would not do: it takes the full product, so the parameters of one
        branch multiply the trials of all others, and it knows no parameter that is absent.
        BruteForceSampler knows branches, but both end by `study.stop()`, which raises where
        trials are asked and told as Tune does, and both may repeat points that run side by side.
        Enqueued points come once each, in this order, under any sampler, and stay in the journal.
        """
        size = nodes.grid_size(self.tree)
        if size > LARGEST_GRID:
            raise refusal("search.sampler", f"a grid of {size} trials", f"at most {LARGEST_GRID}")
        return list(nodes.grid(self.tree))

    # --- what it holds ---

    def searched(self) -> dict[str, Parameter]:
        """Map names to the parameters of all branches, in the order of the file."""
        return {
            leaf.name: leaf.node
            for leaf in nodes.leaves(self.tree)
            if not isinstance(leaf.node, Constant)
        }

    def parameter_names(self) -> list[str]:
        """Name all that is searched: key paths with branches, as codebook.update[ema].decay."""
        return list(self.searched())

    def constants(self) -> dict[str, Any]:
        """Map names to the values that are not searched."""
        return {
            leaf.name: leaf.node.value
            for leaf in nodes.leaves(self.tree)
            if isinstance(leaf.node, Constant)
        }

    def largest_codebook(self) -> int:
        """Find the largest K that the space can propose."""
        sizes = [
            size
            for leaf in nodes.leaves(self.tree)
            if nodes.key_path(leaf.name) == "codebook.size"
            for size in ([leaf.node.value] if isinstance(leaf.node, Constant) else leaf.node.ends())
            if isinstance(size, int)
        ]
        return max(sizes, default=TrialConfig().codebook.size)

    # --- other spaces from it ---

    def with_overrides(self, overrides: Mapping[str, Any], where: str = "override") -> Space:
        """Put constants or blocks at key paths, as a file would that extends this one.

        An InputError begins with `where`.
        """
        parameters = self.parameters
        for path, value in overrides.items():
            tree = functools.reduce(lambda inner, key: {key: inner}, path.split(".")[::-1], value)
            parameters = merge_keys(parameters, tree)
        with located(where):
            return replace(self, parameters=parameters)

    def with_search(self, where: str = "override", **settings: Any) -> Space:
        """Search the same space otherwise, as in `with_search(trials=40)`."""
        with located(where):
            return replace(self, search=_settings({**self.search.model_dump(), **settings}))

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for a run's spec; the order of keys counts, so dump them unsorted."""
        return {
            "name": self.name,
            "description": self.description,
            "source": self.source,
            "search": self.search.model_dump(),
            "parameters": copy.deepcopy(self.parameters),
            **({"starts": copy.deepcopy(list(self.starts))} if self.starts else {}),
            **({"resources": self.resources.plain()} if self.resources.plain() else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "space") -> Space:
        """Read back what `to_dict` wrote; raises InputError for anything else."""
        keys = ("name", "description", "source", "search", "parameters")
        with located(where):
            check_keys(values, (*keys, "starts", "resources"))
            check_shapes({key: values.get(key) for key in keys}, mappings=keys[3:])
            check_shapes({"resources": values.get("resources", {})}, mappings=("resources",))
            return cls(
                name=values["name"],
                description=values["description"],
                source=values["source"],
                search=_settings(values["search"]),
                parameters=copy.deepcopy(values["parameters"]),
                starts=tuple(check_starts(values.get("starts", []))),
                resources=Shares.parse(values.get("resources", {})),
            )

    def _resolve(self, pick: nodes.Pick) -> tuple[dict[str, Any], list[str]]:
        """Give a config's values for one pick, and the names of all nodes on the way."""
        seen: list[str] = []
        values: dict[str, Any] = nodes.resolve(self.tree, pick, seen=seen)
        evaluation = values.setdefault("evaluation", {})
        if isinstance(evaluation, dict):
            latents = evaluation.get("latents", TrialConfig().evaluation.latents)
            if type(latents) is int and latents > 0:
                evaluation["latents"] = max(latents, LATENTS_PER_CODE * self.largest_codebook())
        return values, seen


def load_space(name_or_path: str) -> Space:
    """Load the space of this name in search_spaces, or of this file."""
    with located("space"):
        path = find(name_or_path, Path())
    return _load(path, ())


def available() -> list[Space]:
    """Load the spaces that come with vqtune, sorted by name."""
    return [_load(path, ()) for path in shipped().values()]


class Row(NamedTuple):
    """One searched parameter in words; `branch` says when it exists, empty for always."""

    parameter: str
    distribution: str
    branch: str


def describe_space(space: Space) -> list[Row]:
    """Put every searched parameter in words, in the order of the file."""
    return [
        Row(leaf.name, leaf.node.text(), _branch_in_words(leaf.branch))
        for leaf in nodes.leaves(space.tree)
        if not isinstance(leaf.node, Constant)
    ]


def _branch_in_words(branch: Mapping[str, Option]) -> str:
    labels: dict[str, list[str]] = {}
    for name, label in branch.items():
        labels.setdefault(nodes.key_path(name) or nodes.ROOT, []).append(str(label))
    return " and ".join(f"{path} = {', '.join(chosen)}" for path, chosen in labels.items())


def _load(path: Path, chain: tuple[Path, ...]) -> Space:
    """Read a file over the one it extends; `chain` holds the files that extend this one."""
    values = read_mapping(path)
    with located(str(path)):
        keys = ("description", "extends", "search", "parameters", "starts", "resources")
        check_keys(values, keys)
        starts = tuple(check_starts(values.get("starts", [])))
        named = {key: value for key, value in values.items() if key != "starts"}
        check_shapes(named, mappings=("search", "parameters", "resources"))
        inherited = extended(values, path, chain)
    parent = _load(inherited, (*chain, path)) if inherited else None
    with located(str(path)):
        search, parameters = dict(values.get("search", {})), values.get("parameters", {})
        check_keys(search, (*SearchSettings.model_fields, "samples"), "search")
        if "samples" in search:
            parameters = with_samples(parameters, search.pop("samples"))
        if parent:
            search = {**parent.search.model_dump(), **search}
            parameters = merge_keys(parent.parameters, parameters)
        inherited_shares = parent.resources.plain() if parent else {}
        resources = Shares.parse({**inherited_shares, **values.get("resources", {})})
        description = " ".join(values.get("description", "").split())
        settings = _settings(search)
        return Space(path.stem, description, str(path), settings, parameters, starts, resources)


def _settings(values: Mapping[str, Any]) -> SearchSettings:
    check_keys(values, SearchSettings.model_fields, "search")
    try:
        return SearchSettings.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(f"search.{describe(error, SearchSettings)}") from None
