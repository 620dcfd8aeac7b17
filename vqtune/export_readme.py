"""The README.md of an export: where each config stands, how sure that is, what to do with it."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from analysis.confirmed_text import confirmed_rows, sentences
from analysis.flatten import row_dicts
from analysis.front import objectives
from analysis.ranking import ranking
from analysis.records import Records
from analysis.terms import Terms

README = "README.md"

_HEADERS = (
    *("", "trial", "perplexity", "recon_loss", "no harm", "active codes", "bits/frame"),
    "why it stands here",
)

_WEIGHTS = """\
The weights are plain tensors. In this folder: the codes alone, the codebook as a torch module, and
the whole trial.

```python
import torch
from safetensors.torch import load_file
from trainables.codebooks import VectorQuantizer
from trainables.config import TrialConfig
from trainables.tokenizer import Tokenizer

weights = load_file("{weights}")
codes = weights["{codes}"]  # [K, d]; of groups [groups, K, d of one]

config = TrialConfig.from_yaml("{config}")
vq = VectorQuantizer.from_config(config.codebook, channel_first=True)
vq.load_exported(weights{level})
z_q, indices, loss = vq(torch.randn(2, {dim}, 32))  # latents of your encoder

tokenizer = Tokenizer.load("{weights}")
x = torch.randn(2, {shape})  # examples, normalised: {normalised}
indices = tokenizer.encode(x)
x_hat = tokenizer.decode(indices, x.shape[1:])
```
"""


class Item(Protocol):
    """What the README.md says of one exported config."""

    @property
    def trial_id(self) -> str:
        """The trial of the search."""
        ...

    @property
    def config(self) -> Path:
        """What `vqtune train` reads."""
        ...

    @property
    def weights(self) -> Path:
        """Safetensors."""
        ...

    @property
    def program(self) -> Path | None:
        """A Python file, if there is one."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """Where the config came from."""
        ...


def readme(
    records: Records,
    chosen: pd.DataFrame,
    items: Sequence[Item],
    confirmation: pd.DataFrame | None,
    command: str,
    asked: Terms,
) -> str:
    """Write the README.md of an export, in Markdown.

    Args:
        records: the search.
        chosen: the rows of its ranking that are exported.
        items: their files, in the same order.
        confirmation: as `confirmed` gives it.
        command: what vqtune is called, as in `.venv/bin/vqtune`.
        asked: what the trials are ranked by.
    """
    parts = [
        f"# The best of {records.run.resolve().name}",
        _searched(records, asked),
        _stands(ranking(records, asked), chosen),
        _sure(records, chosen, confirmation, command),
        _commands(items, command),
        "## Load the weights",
        _loading(items[0], records.configs[items[0].trial_id]),
        "## Where they come from",
        _origin(records, items),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _searched(records: Records, asked: Terms) -> str:
    counts = Counter(records.trials["state"])
    states = ", ".join(f"{n} {state}" for state, n in counts.most_common())
    space = records.spec.get("space")
    name = space.get("name") if isinstance(space, dict) else None
    of_space = f" of the space `{name}`" if name else ""
    return (
        f"A search{of_space}: {len(records.trials)} trials ({states}), of at most "
        f"{records.spec.get('samples', 'unknown')} samples each, with seed "
        f"{records.spec.get('seed', 'unknown')}. Ranked: {asked}."
    )


def _stands(ranked: pd.DataFrame, chosen: pd.DataFrame) -> str:
    beside = ranked[(ranked["role"] == "baseline") & ~ranked["trial_id"].isin(chosen["trial_id"])]
    rows = [
        [
            f"{row['position']}.",
            row["trial_id"] if row["role"] != "baseline" else "baseline",
            f"{row['perplexity']:.1f}{_times(row['perplexity_x'])}",
            f"{row['recon_loss']:.4g}{_times(row['recon_loss_x'])}",
            "–" if math.isnan(row["recon_loss_x"]) else "yes" if row["harmless"] else "no",
            f"{row['active_codes']:.0f}",
            f"{row['bits_per_frame']:.2f}",
            row["reason"],
        ]
        for row in row_dicts(pd.concat([chosen, beside]))
    ]
    front = int(ranked["on_front"].sum())
    return "\n".join(
        [
            "## Where they stand",
            "",
            f"{len(chosen)} of the {front} on the front, the best first, by their values in the "
            "search; in brackets × the baseline's:",
            "",
            _table(_HEADERS, rows),
            "",
            *(f"- {row['trial_id']}: {row['technique']}" for row in row_dicts(chosen)),
        ]
    )


def _sure(
    records: Records, chosen: pd.DataFrame, confirmation: pd.DataFrame | None, command: str
) -> str:
    told = ["## How sure that is", ""]
    if confirmation is not None:
        goals = objectives(records.spec)
        headers, rows = confirmed_rows(confirmation, goals)
        told += [
            "Trained again with new seeds, mean ± standard deviation; in brackets the probability "
            "of being on the front:",
            *("", _table(headers, rows), ""),
            *(f"- {line}." for line in sentences(confirmation, goals)),
        ]
    missing = [trial for trial in chosen["trial_id"] if not _is_confirmed(confirmation, trial)]
    if missing:
        line = ["confirm", str(records.run), "--top", str(len(chosen))]
        told += [
            *([""] if confirmation is not None else []),
            f"Not confirmed: {', '.join(missing)}. Values of one seed that were chosen for being "
            "the best are lucky as well as good; expect somewhat worse. To know:",
            "",
            f"    {command} {shlex.join(line)}",
        ]
    return "\n".join(told)


def _is_confirmed(confirmation: pd.DataFrame | None, trial: str) -> bool:
    if confirmation is None:
        return False
    return bool(confirmation.loc[confirmation["trial_id"] == trial, "seeds_complete"].sum())


def _commands(items: Sequence[Item], command: str) -> str:
    told = [
        "## Train them",
        "",
        f"As typed in {Path.cwd()}:",
        "",
        *(f"    {command} {shlex.join(['train', str(item.config)])}" for item in items),
        "",
        "trains one again, to the same metrics on the same kind of machine; `--seeds 3` with two "
        "seeds more and says whether they bear out the values above; `--data DIR`, `--samples N` "
        "on other data, for longer.",
    ]
    programs = [item.program for item in items if item.program is not None]
    if programs:
        told += ["", "Each as a program that builds the codebook, and loads the trained one:", ""]
        python = str(Path(command).with_name("python"))  # the one that vqtune runs with
        told += [f"    {shlex.join([python, str(path)])}" for path in programs]
    return "\n".join(told)


def _loading(item: Item, config: Mapping[str, Any]) -> str:
    made = item.provenance
    codebook = config["codebook"]
    levels = ["bottom"] if config["model"]["kind"] == "hierarchical" else []
    streams = ["0"] if (codebook.get("residual") or {}).get("levels", 1) > 1 else []
    # Checkpoints of before it was written down lack it.
    known = "example_shape" in made
    return _WEIGHTS.format(
        weights=item.weights.name,
        config=item.config.name,
        codes=".".join(["codebook", *levels, *streams]),
        level="".join(f', level="{level}"' for level in levels),
        dim=codebook["dim"],
        shape=", ".join(map(str, made["example_shape"])) if known else "...",
        normalised=f"(x - {made['mean']:.6g}) / {made['std']:.6g}" if known else "(x - mean) / std",
    )


def _origin(records: Records, items: Sequence[Item]) -> str:
    made = items[0].provenance
    data = records.configs[items[0].trial_id]["data"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    place = f", {data['path']}" if data.get("path") else ""
    return "\n".join(
        [
            f"- run: {records.run.resolve()}, begun {records.spec.get('created', 'unknown')}",
            f"- data: {data['kind']}{place}, fingerprint {made['data_fingerprint'][:16]}…",
            f"- trained on: {made['device']}, {made['threads']} threads; {versions}",
            "- all of it in each config's `provenance`",
        ]
    )


def _times(ratio: float) -> str:
    return f" ({ratio:.3g} ×)" if math.isfinite(ratio) else ""


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines
    )
