"""What a report is written from, made up: specimens, commands, runs of many trials."""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Sequence
from copy import deepcopy
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from run_folder import CONFIG, RunFolder

from analysis.records import read_run
from analysis.report import Commands, write_report
from analysis.specimen import Specimen, Specimens

COMMANDS = Commands(
    confirm="vqtune confirm runs/demo --top 5 --seeds 3",
    export="vqtune export runs/demo --top 3 --out exported/demo",
    retrain="vqtune train exported/demo/01-t0013.yaml",
    front="vqtune front runs/demo",
)


def wav(seconds: float, rate: int = 8000) -> bytes:
    """A WAV file of a tone."""
    file = io.BytesIO()
    tone = 8000 * np.sin(2 * math.pi * 220 * np.arange(int(seconds * rate)) / rate)
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(tone.astype("<i2").tobytes())
    return file.getvalue()


def specimen(trial_id: str, title: str, used: int, seconds: float = 0.1, **more: Any) -> Specimen:
    """A codebook of 512 codes of which `used` are hit, with spectrograms and sound."""
    rng = np.random.default_rng(used)
    counts = np.zeros(512, dtype=np.int64)
    counts[rng.permutation(512)[:used]] = rng.integers(20, 100, used)
    examples = np.random.default_rng(0).normal(size=(3, 80, 64))
    fields: dict[str, Any] = {
        "histograms": (counts,),
        "codebook": rng.normal(size=(512, 2)),
        "latents": rng.normal(size=(2000, 2)),
        "code_use": counts,
        "inputs": tuple(examples),
        "outputs": tuple(0.8 * examples),
        "audio": ((wav(seconds), wav(seconds)),) * 3,
        "sample_rate": 8000,
        "note": "",
    }
    return Specimen(trial_id, title, **{**fields, **more})


def specimens(trial_ids: Sequence[str], seconds: float = 0.1) -> Specimens:
    """The baseline first, then numbered ones."""
    titles = [
        name if name == "baseline" else f"No. {i}: {name}" for i, name in enumerate(trial_ids)
    ]
    uses = [21, 508, 400, 300]
    return Specimens(
        tuple(
            specimen(name, title, use, seconds)
            for name, title, use in zip(trial_ids, titles, uses, strict=False)
        ),
        "spectrogram",
        "",
    )


def example_run(folder: RunFolder) -> RunFolder:
    """A baseline, three complete trials with t0013 the best, one stopped, one crashed."""
    folder.spec(space={"search": {"constraint": "recon_loss <= 1.0*baseline"}, **_SPACE})
    folder.trial("baseline", *_rising(14.5, 0.5, 21), role="baseline")
    folder.trial("t0013", *_rising(412.0, 0.23, 508), config=_config(2.0, kind="ema"))
    folder.trial("t0002", *_rising(300.0, 0.22, 400), config=_config(1.0, kind="ema"))
    folder.trial("t0003", *_rising(100.0, 0.60, 150), config=_config(4.0))
    folder.trial("t0004", {"samples": 250, "done": True, "reason": "stopped"}, config=_config(0.1))
    folder.trial("t0005", config=_config(3.0))
    (folder.path / "trials/trial_t0005/error.txt").write_text("Traceback\nMemoryError: no room\n")
    return folder


def many_trials(folder: RunFolder, n: int, reports: int) -> RunFolder:
    """A baseline and `n` - 1 trials of which every third is complete."""
    rng = np.random.default_rng(0)
    folder.spec(trials=n, space=_SPACE)
    for i in range(n):
        size = float(rng.uniform(10, 450)) if i else 14.5
        curve = _rising(size, float(rng.uniform(0.1, 0.6)), int(size), reports)
        kept = curve if i % 3 == 0 else curve[: int(rng.integers(1, reports))]
        kept[-1]["done"] = True
        folder.trial(
            f"t{i:04d}" if i else "baseline",
            *kept,
            role="search" if i else "baseline",
            config=_config(float(rng.uniform(0.1, 4)), "ema" if i % 2 else "gradient", i % 5 == 0),
        )
    return folder


def confirmed_table(rows: Sequence[tuple[str, str, float, float]]) -> pd.DataFrame:
    """A table of `analysis.confirmed` of (trial_id, role, searched and confirmed perplexity)."""
    made = []
    for position, (trial_id, role, searched, mean) in enumerate(rows, start=1):
        row: dict[str, Any] = {"trial_id": trial_id, "role": role, "seeds": 3, "seeds_complete": 3}
        for name, was, is_now in (
            ("perplexity", searched, mean),
            ("recon_loss", 0.23, 0.24),
            ("active_codes", 500.0, 490.0),
            ("bits_per_frame", 8.5, 8.4),
        ):
            row |= {name: is_now, f"{name}_sd": is_now / 50, f"{name}_searched": was}
        row |= {"on_front_searched": True, "on_front": role != "baseline", "probability": 0.7}
        row |= {"position": position, "feasible": True, "harmless": True, "reason": "adds most"}
        made.append(row | {"technique": "ema"})
    return pd.DataFrame(made)


def written(folder: RunFolder, **more: Any) -> str:
    """Write the report of a run beside it; the page's text."""
    fields: dict[str, Any] = {
        "specimens": None,
        "commands": COMMANDS,
        "confirmed": None,
        "wandb_urls": {},
    }
    return page_of(folder, **{**fields, **more}).read_text(encoding="utf-8")


def page_of(folder: RunFolder, specimens: Specimens | None, **more: Any) -> Path:
    """Write the report of a run beside it; the page's path."""
    return write_report(read_run(folder.path), specimens, folder.path, **more)


class Page(HTMLParser):
    """What stands in a page: its elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


_VOID = {"meta", "link", "br", "img", "input", "hr", "wbr", "col"}
_SPACE: dict[str, Any] = {
    "parameters": {"codebook": {"commitment": {"beta": {"min": 0.1, "max": 4}}}}
}


def _rising(perplexity: float, loss: float, codes: int, n: int = 4) -> list[dict[str, Any]]:
    return [
        {
            "samples": 1000 * i // n,
            "perplexity": perplexity * i / n,
            "recon_loss": loss * (2 - i / n),
            "active_codes": codes,
            "codes": 512,
            "done": i == n,
        }
        for i in range(1, n + 1)
    ]


def _config(beta: float, kind: str = "gradient", entropy: bool = False) -> dict[str, Any]:
    config = deepcopy(CONFIG)
    config["codebook"]["commitment"]["beta"] = beta
    config["codebook"]["update"] = {"kind": kind, **({"decay": 0.99} if kind == "ema" else {})}
    config["codebook"]["entropy"] = {"weight": 0.01} if entropy else None
    return config
