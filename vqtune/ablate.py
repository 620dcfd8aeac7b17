"""`vqtune ablate`: which techniques of a config matter, trained over several seeds as one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from analysis.ablation import ablation_table
from analysis.records import read_run
from trainables.config import TrialConfig
from trainables.errors import InputError
from vqtune.ablation import plain, planned_trials, variants
from vqtune.planned import left, train_left
from vqtune.run_folder import RunFolder, read_spec, write_text
from vqtune.session import Outcome, RunRequest, begun, check_same, opened
from vqtune.train import adapted

TABLE = "ablation.csv"


@dataclass(frozen=True)
class Request(RunRequest):
    """What `vqtune ablate` was asked for; None where a flag was not given."""

    config: Path
    seeds: int = 3
    samples: int | None = None
    data: Path | None = None


def ablate(request: Request, console: Console) -> Outcome:
    """Run or resume an ablation; returns when it is finished or interrupted.

    The table of a finished one is in the run's `ablation.csv`.

    Raises:
        InputError: anything in the request that will not do, before the first trial starts.
    """
    given = TrialConfig.from_yaml(request.config)
    config = adapted(given, request.samples, request.data, given.seed)
    found, refused = variants(config)
    if found[0].config == plain(config):
        raise InputError(
            "is the plain VQ-VAE: it has no technique to take away", str(request.config)
        )
    seeds = list(range(config.seed, config.seed + request.seeds))
    trials = planned_trials(found, seeds)
    asked = {
        "config": found[0].config.to_dict(),
        "seeds": seeds,
        "variants": [
            {"name": v.name, "kind": v.kind, "technique": v.technique, "trials": v.trials}
            for v in found
        ],
        "refused": refused,
    }
    with opened(request, f"ablate-{request.config.stem}") as run:
        if request.resume:
            _check_same(asked, run)
            if not left(trials, run):
                console.print(
                    f"{run.path.name} is finished: nothing is left to do", highlight=False
                )
                return _ended(run)
        first = trials[0].config
        spec = {"objectives": {"perplexity": "max", "recon_loss": "min"}, "ablation": asked}
        with begun(request, run, first, len(trials), spec, console) as taken:
            configs = len(trials) // len(seeds)
            console.print(
                f"{run.path.name}: {configs} configs with {len(seeds)} seeds, {len(trials)} trials",
                highlight=False,
            )
            train_left(trials, run, run.path.name, taken, console)
        return Outcome(run, finished=False) if left(trials, run) else _ended(run)


def _check_same(asked: dict[str, Any], run: RunFolder) -> None:
    theirs = read_spec(run).get("ablation")
    if not isinstance(theirs, dict):
        raise InputError(
            f"ablation: found {theirs!r}, allowed: what an ablation has written", str(run.spec)
        )
    for part, mine in asked.items():
        check_same(mine, theirs.get(part), part, run, "config")


def _ended(run: RunFolder) -> Outcome:
    table = ablation_table(read_run(run.path))
    write_text(run.path / TABLE, table.to_csv(index=False, lineterminator="\n"))
    return Outcome(run, finished=True)
