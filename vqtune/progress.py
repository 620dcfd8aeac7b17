"""What a running search shows: trials by state, samples, the front so far, time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from ray.tune import Callback
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.front import nondominated
from analysis.technique import technique_summary

_ORDER = ("running", "complete", "stopped", "diverged", "failed")
_FRONT_ROWS = 8
_OBJECTIVES = {"perplexity": "max", "recon_loss": "min"}
_FORMATS = {"perplexity": ".1f", "recon_loss": ".4f"}


class LiveTable(Callback):  # type: ignore[misc]
    """A table on a terminal; elsewhere one line when a trial ends."""

    def __init__(
        self,
        console: Console,
        name: str,
        trials: int,
        samples: int,
        baseline: str = "baseline",
        objectives: Mapping[str, str] = _OBJECTIVES,
    ) -> None:
        """Show the run `name` of so many trials with so many samples each.

        `baseline` is the id of the trial that the others are told against; the front is that of
        the objectives.
        """
        self.objectives = dict(objectives)
        self.console, self.name, self.trials, self.samples = console, name, trials, samples
        self.baseline = baseline
        self.states: dict[str, str] = {}
        self.last: dict[str, dict[str, Any]] = {}
        self.configs: dict[str, dict[str, Any]] = {}
        self.carried = 0
        self.started = time.monotonic()
        self._live = Live(
            get_renderable=self.render, console=console, refresh_per_second=2, transient=True
        )

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it is given, and vqtune resumes from its own records."""
        return {}

    def __enter__(self) -> LiveTable:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def carry_over(self, trial_id: str, state: str, last: dict[str, Any], config: Any) -> None:
        """Show a trial that an earlier session has ended; `last` is empty without a report."""
        self.states[trial_id], self.last[trial_id] = state, last
        self.configs[trial_id] = config
        self.carried += int(last.get("samples", 0))

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial runs."""
        trial_id = trial.config["trial_id"]
        self.states[trial_id] = "running"
        self.configs[trial_id] = trial.config["trial"]

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A trial reports."""
        self.last[trial.config["trial_id"]] = result

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial ends: complete, stopped early or diverged."""
        last = self.last.get(trial.config["trial_id"], {})
        state = "complete" if last.get("complete") else "stopped"
        self._ended(trial, "diverged" if last.get("diverged") else state)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A trial fails."""
        self._ended(trial, "failed")

    def render(self) -> Group:
        """The table as it stands."""
        counts = Counter(self.states.values())
        shown = [f"{counts[state]} {state}" for state in _ORDER if counts[state]]
        head = Text.assemble(
            (self.name, "bold"),
            f"   {self._done()}/{self.trials} trials   ",
            "  ".join(shown),
            f"   {self._drawn():,} samples   ",
            self._time_left(),
        )
        shown_metrics = list(dict.fromkeys([*_FORMATS, *self.objectives]))
        table = Table("trial", *shown_metrics, "active", "techniques", box=None)
        for trial_id in self._front()[:_FRONT_ROWS]:
            last = self.last[trial_id]
            table.add_row(
                trial_id,
                *(format(last[name], _FORMATS.get(name, ".4g")) for name in shown_metrics),
                f"{last['active_codes']:.0f}",
                "baseline" if trial_id == self.baseline else self._summary(trial_id),
            )
        return Group(head, table)

    def _ended(self, trial: Any, state: str) -> None:
        trial_id = trial.config["trial_id"]
        self.states[trial_id] = state
        if not self.console.is_terminal:
            last = self.last.get(trial_id, {})
            numbers = (
                f"perplexity {last['perplexity']:.1f}, recon_loss {last['recon_loss']:.4f}, "
                f"{last['samples']:,} samples"
                if last
                else "no report"
            )
            self.console.print(
                f"[{self._done()}/{self.trials}] {trial_id} {state}: {numbers}",
                markup=False,
                highlight=False,
            )

    def _summary(self, trial_id: str) -> str:
        baseline = self.configs.get(self.baseline)
        try:
            return technique_summary(self.configs[trial_id], *([baseline] if baseline else []))
        except KeyError:
            return ""

    def _front(self) -> list[str]:
        complete = [t for t, state in self.states.items() if state == "complete"]
        if not complete:
            return []
        names, ways = list(self.objectives), list(self.objectives.values())
        values = np.array([[self.last[t][name] for name in names] for t in complete])
        on = nondominated(values, ["max" if way == "max" else "min" for way in ways])
        front = [t for t, keep in zip(complete, on, strict=True) if keep]
        front.sort(key=lambda t: self.last[t]["recon_loss"])
        base = self.baseline
        return [base, *front] if base in complete and base not in front else front

    def _done(self) -> int:
        return sum(state != "running" for state in self.states.values())

    def _drawn(self) -> int:
        return sum(int(last.get("samples", 0)) for last in self.last.values())

    def _time_left(self) -> str:
        elapsed, done = time.monotonic() - self.started, self._done()
        drawn = self._drawn() - self.carried
        if not done or drawn <= 0 or done >= self.trials:
            return f"{elapsed:.0f} s so far"
        # Trials that are still to come draw on average what those that ended drew.
        ended = [
            self.last.get(t, {}).get("samples", 0) for t, s in self.states.items() if s != "running"
        ]
        expected = float(np.mean(ended)) * self.trials
        left = max(0.0, expected - self._drawn()) * elapsed / drawn
        return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"
