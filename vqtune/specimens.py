"""Looks into a run's best trials for the report: loads their checkpoints, trains nothing.

Whatever is missing or broken becomes a line in the specimen's note; the report goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from analysis.flatten import row_dicts
from analysis.records import Records
from analysis.specimen import Specimen, Specimens
from trainables.errors import InputError, named
from trainables.examine import Examination, Trained, examine, restore
from trainables.shown import Floats, Kind, Listening, chosen, kind_of, listening, picture

# What an example may have, so that the page stays small: the sound is cut, the picture shrunk.
_LONGEST_SECONDS = 3.0
_PICTURE = (160, 320)
# Beyond this the metrics of another machine are not those that were recorded.
_ROUNDING = 1e-3


def specimens(
    records: Records, titles: Mapping[str, str], own_code: Collection[str] | None = None
) -> Specimens:
    """Look into the codebooks of some trials.

    Args:
        records: their run.
        titles: what to call each trial, by trial_id, in the order in which they are shown.
        own_code: the factories that may be imported for it; any where None.
    """
    folders = {row["trial_id"]: row["folder"] for row in row_dicts(records.trials)}
    found = [
        _specimen(trial_id, title, folders.get(trial_id), own_code)
        for trial_id, title in titles.items()
    ]
    kinds = [kind for _, kind in found if kind is not None]
    note = "" if kinds or not found else "No codebook of this run can be looked into here."
    return Specimens(tuple(one for one, _ in found), kinds[0] if kinds else "series", note)


def _specimen(
    trial_id: str, title: str, folder: Path | None, own_code: Collection[str] | None
) -> tuple[Specimen, Kind | None]:
    nothing = Specimen(trial_id, title, (), None, None, None, (), (), (), None, "")
    if folder is None:
        return replace(nothing, note="is not in this run"), None
    try:
        trained = restore(folder, own_code=own_code)
        heard = listening(trained.dataset)
        found = examine(trained, chosen(trained.dataset))
        return _drawn(nothing, trained, found, heard), kind_of(trained.dataset)
    except InputError as error:
        return replace(nothing, note=str(error)), None
    except Exception as error:  # a user's modules and data may raise anything
        return replace(nothing, note=named(error)), None


def _drawn(
    nothing: Specimen, trained: Trained, found: Examination, heard: Listening | None
) -> Specimen:
    axes = _principal_axes(found.latents)
    longest = None
    if heard is not None:
        longest = max(1, round(_LONGEST_SECONDS * heard.frames_per_second))
    inputs, outputs = (
        [values[..., :longest] for values in side] for side in (found.inputs, found.outputs)
    )
    notes = [_off_record(trained, found)]
    channels = trained.dataset.example_shape[0]
    if kind_of(trained.dataset) == "image" and channels not in (1, 3):
        notes.append(f"of {channels} channels the first is shown")
    return replace(
        nothing,
        histograms=found.histograms,
        codebook=axes(found.codes),
        latents=axes(found.latents),
        code_use=found.code_use,
        inputs=tuple(picture(x, _PICTURE) for x in inputs),
        outputs=tuple(picture(x, _PICTURE) for x in outputs),
        audio=()
        if heard is None
        else tuple((heard.wav(x), heard.wav(y)) for x, y in zip(inputs, outputs, strict=True)),
        sample_rate=None if heard is None else heard.rate,
        note="; ".join(note for note in notes if note),
    )


def _off_record(trained: Trained, found: Examination) -> str:
    """Say so where the codes are not used as the trial recorded: numbers differ by machine."""
    then, made = trained.report["perplexity"], trained.made
    if abs(found.perplexity - then) <= _ROUNDING * then:
        return ""
    here = f"torch {torch.__version__} on {trained.stack.device.type}"
    there = f"torch {made['versions']['torch']} on {made['device']}"
    return f"perplexity is {found.perplexity:.4g} here ({here}), {then:.4g} was recorded ({there})"


def _principal_axes(latents: Floats) -> Callable[[Floats], Floats]:
    """The projection [n, d] to [n, 2] on the latents' first two principal components.

    Components that there are not, in one dimension or of latents that are all equal, give zeros.
    """
    centre = latents.mean(axis=0, dtype=np.float64)
    _, directions = np.linalg.eigh(np.atleast_2d(np.cov(latents, rowvar=False, dtype=np.float64)))
    main = directions[:, ::-1][:, :2]
    # The sign is free: by its largest entry, so that a picture is always the same.
    main = main * np.sign(np.take_along_axis(main, np.abs(main).argmax(0)[None], 0))
    main = np.pad(main, ((0, 0), (0, 2 - main.shape[1])))
    return lambda points: np.asarray((points - centre) @ main, np.float32)
