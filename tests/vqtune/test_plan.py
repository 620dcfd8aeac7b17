"""What a resume may change, and what it refuses in one line without touching the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml
from click.testing import CliRunner

from tests.vqtune.conftest import TINY, Searched, digest, optuna_states, run_search
from trainables.errors import InputError
from vqtune.cli import main
from vqtune.commands.endings import without_more_trials
from vqtune.journal import open_journal
from vqtune.plan import Plan, resumed
from vqtune.run_folder import RunFolder
from vqtune.spaces import load_space
from vqtune.trial_count import More

GRID = TINY.replace("trials: 5", "trials: TRIALS, sampler: grid").replace(
    "{distribution: log_uniform_values, min: 0.05, max: 10.0}", "{values: [1, 2, 3]}"
)
GRID = GRID[: GRID.index("    update:")] + "  training: {reports: 4}\n"


# --- how many trials ------------------------------------------------------------------------------


def total(text: str, trials: int | More | None, begun: int, folder: Path) -> int:
    """How many there are to be when a search of which so many have begun is resumed."""
    (folder / "tiny.yaml").write_text(text)
    plan = Plan(load_space(str(folder / "tiny.yaml")))
    past: Any = SimpleNamespace(proposed=begun - 1)
    return resumed(plan, trials, RunFolder(folder), plan, past).space.search.trials


@pytest.mark.parametrize(
    ("trials", "begun", "expected"),
    [
        (None, 3, 5),
        (5, 3, 5),
        (6, 3, 6),
        (4, 3, 4),
        (3, 3, 3),
        (More(1), 3, 6),
        (More(7), 5, 12),
        (None, 5, 5),
    ],
)
def test_a_resume_may_have_more_trials_or_fewer(
    trials: int | More | None, begun: int, expected: int, tmp_path: Path
) -> None:
    assert total(TINY, trials, begun, tmp_path) == expected


def test_not_fewer_than_have_begun(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        total(TINY, 2, 3, tmp_path)
    assert str(caught.value) == "--trials: found 2; 3 trials have been begun, allowed: 3 or more"


@pytest.mark.parametrize(
    ("before", "trials", "expected"),
    [
        (99, None, 99),
        (99, 99, 99),
        (3, More(1), 4),
        (3, 4, 4),
        (3, More(2), "found +2"),
        (3, 5, "found 5"),
        (99, More(1), "found +1"),
        (99, 100, "found 100"),
    ],
)
def test_a_grid_has_no_more_trials_than_points(
    before: int, trials: int | More | None, expected: int | str, tmp_path: Path
) -> None:
    text = GRID.replace("TRIALS", str(before))
    if isinstance(expected, int):
        assert total(text, trials, 3, tmp_path) == expected
        return
    with pytest.raises(InputError) as caught:
        total(text, trials, 3, tmp_path)
    assert str(caught.value) == (
        f"--trials: {expected}; the grid has 3 points, allowed: at most 4 trials, the baseline "
        "among them"
    )


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["search", "x", "--trials", "+4", "--seed", "3"], ["search", "x", "--seed", "3"]),
        (["search", "x", "--trials=+4"], ["search", "x"]),
        (["search", "x", "--trials", "4"], ["search", "x", "--trials", "4"]),
        (["search", "+4", "--name", "+4"], ["search", "+4", "--name", "+4"]),
    ],
)
def test_the_command_to_go_on_with_does_not_add_trials_again(
    given: list[str], kept: list[str]
) -> None:
    assert without_more_trials(given) == kept


# --- a run that is gone on with -------------------------------------------------------------------


@pytest.fixture
def run(finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of the finished run of five trials, beside the space's file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY)
    shutil.copytree(finished.run, tmp_path / "runs" / "demo")
    return RunFolder(tmp_path / "runs" / "demo")


RESUME = ["search", "tiny.yaml", "--name", "demo", "--seed", "5", "--resume"]


def refusal(run: RunFolder, *flags: str) -> str:
    """The one line with which a resume is refused; nothing in the run is touched."""
    before = digest(run.path)
    result = CliRunner().invoke(main, [*RESUME, *flags])
    assert result.exit_code == 2, result.output
    assert digest(run.path) == before
    [line] = result.stderr.splitlines()
    assert result.stdout == ""
    return line.removeprefix("Error: ").replace(f"{run.path}/", "")


@pytest.mark.long
def test_more_trials_are_trained_and_recorded(run: RunFolder, cluster: str) -> None:
    before = digest(run.trials)
    asked = {"name": "demo", "seed": 5, "resume": True}
    searched = run_search(Path("tiny.yaml"), cluster, trials=More(2), **asked)
    assert searched.outcome.finished
    assert searched.states() == dict.fromkeys(
        ["baseline", *(f"t{n:04d}" for n in range(1, 7))], "complete"
    )
    assert optuna_states(run.path) == ["COMPLETE"] * 6
    assert digest(run.trials).items() > before.items()
    spec = yaml.safe_load(run.spec.read_text())
    assert (spec["trials"], spec["space"]["search"]["trials"]) == (7, 7)
    # The file still says five; what is recorded counts.
    result = CliRunner().invoke(main, RESUME)
    assert result.exit_code == 0
    assert result.stdout.startswith("demo is finished: nothing is left to do\n")


@pytest.mark.parametrize("flags", [[], ["--trials", "5"], ["--budget", "samples=1"]])
def test_a_finished_run_stays_finished(flags: list[str], run: RunFolder) -> None:
    result = CliRunner().invoke(main, [*RESUME, *flags])
    assert result.exit_code == 0
    assert result.stdout.startswith("demo is finished: nothing is left to do\n")


def test_a_half_written_last_line_is_no_reason_to_refuse(run: RunFolder) -> None:
    with run.journal.open("a") as file:
        file.write('{"op_code":6,"wor')
    assert CliRunner().invoke(main, RESUME).exit_code == 0


CHANGES = {
    "fewer trials": (
        TINY,
        ["--trials", "4"],
        "--trials: found 4; 5 trials have been begun, allowed: 5 or more",
    ),
    "another seed": (
        TINY,
        ["--seed", "6"],
        "--resume demo: parameters.seed: the run was started with 5, now it is 6; allowed: the "
        "same space and flags",
    ),
    "no such budget": (TINY, ["--budget", "days=3"], "--budget: found 'days=3'; allowed: "),
    "no such run": (TINY, ["--warm-start", "nothing"], "--warm-start: no run 'nothing'"),
    "another objective": (
        TINY.replace("{trials", "{objectives: {usage: max, recon_loss: min}, trials"),
        [],
        "--resume demo: search.objectives.perplexity: the run was started with 'max', now it is "
        "nothing",
    ),
    "another direction": (
        TINY.replace("{trials", "{objectives: {perplexity: min, recon_loss: min}, trials"),
        [],
        "--resume demo: search.objectives.perplexity: the run was started with 'max', now it is "
        "'min'",
    ),
    "another constraint": (
        TINY.replace("{trials", "{constraint: recon_loss <= 1.1*baseline, trials"),
        [],
        "--resume demo: search.constraint: the run was started with 'recon_loss <= 1*baseline', "
        "now it is 'recon_loss <= 1.1*baseline'",
    ),
    "early stopping": (
        TINY.replace("early_stopping: none", "early_stopping: pareto"),
        [],
        "--resume demo: search.early_stopping: the run was started with 'none', now it is 'pareto'",
    ),
    "another grace": (
        TINY.replace("{trials", "{grace: 0.5, trials"),
        [],
        "--resume demo: search.grace: the run was started with 0.125, now it is 0.5",
    ),
    "another block": (
        TINY.replace("  training:", "    respawn: {period: 100}\n  training:"),
        [],
        "--resume demo: parameters.codebook.respawn: the run was started with None, now it is {",
    ),
}


@pytest.mark.parametrize(("text", "flags", "message"), CHANGES.values(), ids=CHANGES)
def test_a_change_is_refused(text: str, flags: list[str], message: str, run: RunFolder) -> None:
    Path("tiny.yaml").write_text(text)
    assert refusal(run, *flags).startswith(message)


def test_a_warm_start_comes_first_or_not_at_all(run: RunFolder) -> None:
    shutil.copytree(run.path, "runs/earlier")
    assert refusal(run, "--warm-start", "earlier") == (
        f"--warm-start: found {Path('runs/earlier').resolve()}; the run was started with none, "
        "allowed: the same"
    )


def test_objectives_in_another_order_are_the_same(run: RunFolder) -> None:
    """Values and proposals go by the order that the run was started with."""
    text = TINY.replace("{trials", "{objectives: {recon_loss: min, perplexity: max}, trials")
    Path("tiny.yaml").write_text(text)
    before = digest(run.path)
    assert CliRunner().invoke(main, RESUME).exit_code == 0
    after = digest(run.path)
    assert {name: after[name] for name in before} == before
    more = {name.split("/")[0] for name in after.keys() - before.keys()}
    assert more == {"report", "report.html"}


# --- journals and specs that are not the run's ----------------------------------------------------


def entries(run: RunFolder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.journal.read_text().splitlines()]


def keep(run: RunFolder, wanted: Callable[[dict[str, Any]], bool]) -> None:
    lines = [json.dumps(entry) + "\n" for entry in entries(run) if wanted(entry)]
    run.journal.write_text("".join(lines))


def without_the_last_trial(run: RunFolder) -> None:
    """As a copy from before it was begun."""
    made = [i for i, entry in enumerate(entries(run)) if entry["op_code"] == 4]
    lines = run.journal.read_text().splitlines(keepends=True)
    run.journal.write_text("".join(lines[: made[-1]]))


def without_parameters(run: RunFolder) -> None:
    """Cut behind the first parameter of t0002."""
    keep(
        run,
        lambda entry: (
            entry.get("trial_id") != 1 or entry.get("param_name") == "codebook.commitment.beta"
        ),
    )


def with_other_parameters(run: RunFolder) -> None:
    """As written by another seed; t0002 is at work in it."""
    changed = [
        entry
        | ({"param_value_internal": 0.07} if entry.get("param_name", "").endswith("beta") else {})
        for entry in entries(run)
        if not (entry.get("trial_id") == 1 and entry.get("state"))
    ]
    run.journal.write_text("".join(json.dumps(entry) + "\n" for entry in changed))


def of_another_study(run: RunFolder) -> None:
    run.journal.unlink()
    optuna.create_study(study_name="mine", storage=open_journal(run.journal))


def for_one_objective(run: RunFolder) -> None:
    run.journal.unlink()
    optuna.create_study(study_name="vqtune", storage=open_journal(run.journal))


def of_another_run(run: RunFolder) -> None:
    spec = yaml.safe_load(run.spec.read_text())
    run.spec.write_text(yaml.safe_dump(spec | {"token": "12345678"}, sort_keys=False))


def in_half(run: RunFolder) -> None:
    whole = run.journal.read_bytes()
    run.journal.write_bytes(whole[: len(whole) // 2])


JOURNALS: dict[str, tuple[Callable[[RunFolder], object], str]] = {
    "gone": (
        lambda run: run.journal.unlink(),
        "optuna.journal: is not there, but trials are, such as t0001; allowed: the journal that "
        "this run has written",
    ),
    "empty": (
        lambda run: run.journal.write_text(""),
        "optuna.journal: lacks t0001 and 3 more, which the run has trained; allowed: the journal",
    ),
    "text": (
        lambda run: run.journal.write_text("hello\n"),
        "optuna.journal: found 'hello' in line 1; allowed: an Optuna journal",
    ),
    "other JSON": (
        lambda run: run.journal.write_text('{"a": 1}\n'),
        "optuna.journal: found '{\"a\": 1}' in line 1; allowed: an Optuna journal",
    ),
    "cut in half": (in_half, "optuna.journal: lacks t000"),
    "an older copy": (
        without_the_last_trial,
        "optuna.journal: lacks t0004, which the run has trained; allowed: the journal that",
    ),
    "without parameters": (
        without_parameters,
        "optuna.journal: has other parameters of t0002 than the run has trained; allowed: the",
    ),
    "with other parameters": (
        with_other_parameters,
        "optuna.journal: has other parameters of t0002 than the run has trained; allowed: the",
    ),
    "of another study": (of_another_study, "optuna.journal: found the study 'mine'; allowed: 'vq"),
    "for one objective": (
        for_one_objective,
        "optuna.journal: found a study that is to minimize; allowed: one for the objectives "
        "perplexity max, recon_loss min",
    ),
    "of another run": (of_another_run, "optuna.journal: was written by another run; allowed: the"),
    "a damaged budget": (
        lambda run: run.spec.write_text(run.spec.read_text() + "budget: [3]\n"),
        "spec.yaml: budget: found [3], allowed: what a search has written",
    ),
    "a damaged warm start": (
        lambda run: run.spec.write_text(run.spec.read_text() + "warm_start: [3]\n"),
        "spec.yaml: warm_start: found [3], allowed: a folder",
    ),
}


@pytest.mark.parametrize(("damage", "message"), JOURNALS.values(), ids=JOURNALS)
def test_what_is_not_the_runs_is_refused(
    damage: Callable[[RunFolder], object], message: str, run: RunFolder
) -> None:
    damage(run)
    assert refusal(run).startswith(message)
