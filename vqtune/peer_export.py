"""A trial's codebook in the terms of another library, vector-quantize-pytorch.

Only what means the same there becomes an argument; all else is named in words. Written against the
library's source at version 1.32, which need not be installed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from trainables.config import TrialConfig
from trainables.config_block import Block
from trainables.config_codebook import (
    CodebookConfig,
    EmaUpdate,
    FsqUpdate,
    GradientUpdate,
    LfqUpdate,
    SimVqUpdate,
)
from trainables.config_model import HierarchicalModel
from vqtune.latent_counts import latents_a_step

# The library adds eps to each code's count, which draws a rare code to the origin. This small, it
# does so only where the EMA update here stops moving the code.
_EPS = 1e-20

# Techniques that no class has, and why what looks like them is not them.
_ABSENT = {
    "entropy": "codebook_diversity_loss_weight is another term: an entropy for each position of "
    "the sequence, of assignments by plain distance on a fixed scale.",
    "sample_entropy": "it has no term for how sure each latent is of its code.",
    "stochastic": "stochastic_sample_codes is another draw: by plain distance on a fixed scale, "
    "and not less with time.",
    "rotation": "this class passes the gradient straight through.",
    "normalization": "standardise the latents before the quantizer, without a learned scale.",
    "dim_growth": "all dimensions are open from the start.",
    "growth": "all codes are there from the start.",
    "least_recent": "it replaces codes for how little they are used, not for how long they wait.",
    "reanchor": "it has nothing that pulls little-used codes towards latents.",
}
# The same for classes without any of this.
_BARE = {
    "entropy": "this class has no entropy term.",
    "stochastic": "this class always takes the nearest code.",
}


@dataclass(frozen=True)
class PeerArguments:
    """A codebook in the library's terms.

    Attributes:
        class_name: the library's class.
        arguments: its keyword arguments.
        use: statements that make z_q, codes and loss of `quantizer` and `latents`.
        lacking: what the library lacks or does otherwise, a line each, the config's key first.
    """

    class_name: str
    arguments: dict[str, Any]
    use: tuple[str, ...]
    lacking: tuple[str, ...]


def peer_arguments(config: TrialConfig) -> PeerArguments:
    """Express a trial's codebook, with all that cannot be expressed named in `lacking`."""
    kinds = {FsqUpdate: _fsq, LfqUpdate: _lfq, SimVqUpdate: _simvq}
    draft = kinds.get(type(config.codebook.update), _vector_quantize)(config)
    for name, sentence in draft.absent.items():
        block = getattr(config.codebook, name)
        if block is not None:
            draft.lack(_with_settings(name, block), sentence)
    if isinstance(config.model, HierarchicalModel):
        draft.lack(
            "model.kind hierarchical",
            "each of its two levels takes such a quantizer of its own; HierarchicalVQ is another "
            "model.",
        )
    return PeerArguments(draft.name, draft.arguments, draft.use, tuple(draft.lacking))


@dataclass
class _Draft:
    """What becomes a PeerArguments; `absent` has a sentence for each technique left to name."""

    name: str
    arguments: dict[str, Any]
    use: tuple[str, ...] = ("z_q, codes, loss = quantizer(latents)",)
    lacking: list[str] = field(default_factory=list)
    absent: dict[str, str] = field(default_factory=lambda: dict(_ABSENT))

    def lack(self, key: str, sentence: str) -> None:
        self.lacking.append(f"{key}: {sentence}")


def _vector_quantize(config: TrialConfig) -> _Draft:
    book = config.codebook
    draft = _chain(book, "VectorQuantize")
    del draft.absent["rotation"]
    _place_dims(draft, book)
    if isinstance(book.update, EmaUpdate):
        _ema(draft, book, book.update)
    else:
        assert isinstance(book.update, GradientUpdate)
        _gradient(draft, book, book.update)
    draft.arguments["commitment_weight"] = book.commitment.beta
    draft.arguments["rotation_trick"] = book.rotation is not None  # the library's default is True
    _sphere(draft, book)
    _kmeans(draft, book)
    _respawn(draft, config)
    return draft


def _chain(book: CodebookConfig, plain: str) -> _Draft:
    """Choose the class for the groups and residual levels of VectorQuantize or SimVQ."""
    groups, levels = _layout(book)
    if levels == 1:
        return _Draft(plain, {"dim": book.dim, "codebook_size": book.size})
    several = {"VectorQuantize": "ResidualVQ", "SimVQ": "ResidualSimVQ"}[plain]
    reduced = "losses.sum()"
    if groups > 1 and plain == "VectorQuantize":
        several, reduced = "GroupedResidualVQ", "losses.sum(-1).mean()"
    use = ("z_q, codes, losses = quantizer(latents)", f"loss = {reduced}")
    arguments = {"dim": book.dim, "codebook_size": book.size, "num_quantizers": levels}
    draft = _Draft(several, arguments, use)
    assert book.residual is not None
    draft.arguments["quantize_dropout"] = book.residual.dropout > 0
    if 0 < book.residual.dropout < 1:
        draft.lack(
            f"residual.dropout {book.residual.dropout}", "it drops levels in every step or in none."
        )
    rotated = ", rotated to its own code," if book.rotation else ""
    draft.lack(
        f"residual.levels {levels}",
        f"each level passes the decoder's gradient on{rotated} and they add up, so that the "
        f"commitment weighs about 1/{levels} as much against it as it does here.",
    )
    return draft


def _place_dims(draft: _Draft, book: CodebookConfig) -> None:
    """Lay out groups and projections, as arguments where the class has them."""
    groups, levels = _layout(book)
    inner = book.lookup_dim
    projected = book.low_dim is not None or book.dim_growth is not None
    if groups > 1 and levels > 1:
        # This class would project each group by itself.
        draft.arguments |= {"dim": inner, "groups": groups}
    elif groups > 1:
        # Without its dimension each head would have all of the latents' dimensions.
        split = {"heads": groups, "separate_codebook_per_head": True}
        draft.arguments |= {**split, "codebook_dim": inner // groups}
    elif inner != book.dim:
        draft.arguments["codebook_dim"] = inner
    if projected and draft.arguments["dim"] == inner:
        _lack_projection(draft, book)


def _lack_projection(draft: _Draft, book: CodebookConfig) -> None:
    name = "low_dim" if book.low_dim else "dim_growth"
    dim, inner = book.dim, book.lookup_dim
    draft.lack(
        _with_settings(name, getattr(book, name)),
        f"put torch.nn.Linear({dim}, {inner}) before the quantizer and torch.nn.Linear({inner}, "
        f"{dim}) behind it.",
    )


def _ema(draft: _Draft, book: CodebookConfig, update: EmaUpdate) -> None:
    draft.arguments |= {"ema_update": True, "decay": update.decay, "eps": _EPS}
    draft.lack(
        "update ema",
        f"it adds eps to a code's count, which draws a code to the origin once its count falls "
        f"to {_EPS}; here the code stays.",
    )
    if update.accumulate > 1:
        how = f"call it with accum_ema_update=True in {update.accumulate - 1} of so many steps."
        draft.lack(
            f"update.accumulate {update.accumulate}",
            how if _layout(book)[1] == 1 else "this class updates the codes in every step.",
        )


def _gradient(draft: _Draft, book: CodebookConfig, update: GradientUpdate) -> None:
    draft.arguments |= {"ema_update": False, "learnable_codebook": True}
    beta = book.commitment.beta
    if beta == 0:
        draft.lack(
            f"update.weight {update.weight}",
            "one loss moves latents and codes, so without a commitment no code learns.",
        )
    elif update.weight != beta:
        draft.lack(
            f"update.weight {update.weight}",
            f"one loss moves latents and codes, so the codes' weight is commitment_weight {beta}, "
            "too; Adam cancels this scale.",
        )
    _rates(draft, update)


def _rates(draft: _Draft, update: GradientUpdate | SimVqUpdate) -> None:
    if update.lr_ratio != 1:
        draft.lack(
            f"update.lr_ratio {update.lr_ratio}",
            "give the quantizer's parameters a group of their own in the optimiser, at so many "
            "times the encoder's learning rate.",
        )
    if update.lr_final != 1:
        draft.lack(
            f"update.lr_final {update.lr_final}",
            "let that ratio fall to so much of itself along a cosine.",
        )


def _sphere(draft: _Draft, book: CodebookConfig) -> None:
    """Ask for the cosine lookup where it means the same, or nearly so."""
    learned, levels = book.update.kind == "gradient", _layout(book)[1]
    if book.cosine and learned:
        draft.lack("cosine", "use_cosine_sim refuses learned codes, so this is a plain lookup.")
    elif book.cosine:
        draft.arguments["use_cosine_sim"] = True
    elif book.low_dim and (learned or levels > 1):
        why = "refuses learned codes" if learned else "takes the lengths off what levels leave over"
        draft.lack(
            _with_settings("low_dim", book.low_dim),
            f"use_cosine_sim {why}, so the lookup is not normalised.",
        )
    elif book.low_dim:
        draft.arguments["use_cosine_sim"] = True
        draft.lack(
            _with_settings("low_dim", book.low_dim),
            "use_cosine_sim takes the lengths off latents and codes; here only the lookup is "
            "normalised.",
        )


def _kmeans(draft: _Draft, book: CodebookConfig) -> None:
    if book.kmeans:
        # Without an iteration the library fails.
        iterations = max(1, book.kmeans.iterations)
        draft.arguments |= {"kmeans_init": True, "kmeans_iters": iterations}
        if iterations != book.kmeans.iterations:
            draft.lack(f"kmeans.iterations {book.kmeans.iterations}", "it needs at least one.")
        draft.lack(
            f"kmeans.latents {book.kmeans.latents}",
            "it seeds from its first batch alone, from random latents of it, not by k-means++, "
            "and leaves a code without a latent at the origin.",
        )
    elif "use_cosine_sim" not in draft.arguments:
        groups, _ = _layout(book)
        most = math.sqrt(6 / (book.size * (book.lookup_dim // groups)))
        draft.lack(
            "first codes",
            f"it draws them between ±{most:.2g}; here they lie between ±{1 / book.size:.2g}.",
        )


def _respawn(draft: _Draft, config: TrialConfig) -> None:
    book, respawn = config.codebook, config.codebook.respawn
    if respawn is None:
        return
    use = "the averages of the EMA update"
    if isinstance(book.update, GradientUpdate):
        # Without an EMA update the decay is that of the counts alone.
        draft.arguments["decay"] = max(0.0, 1 - config.training.batch_size / respawn.period)
        use = "averages of their use over about a period"
    _threshold(draft, config, respawn.threshold)
    draft.lack(
        f"respawn.period {respawn.period}",
        f"it looks for dead codes in every step, at {use}; a new code whose next step brings less "
        "than the threshold is dead again.",
    )
    if respawn.buffer:
        draft.lack(f"respawn.buffer {respawn.buffer}", "it draws from the step's latents alone.")
    if respawn.jitter:
        draft.lack(f"respawn.jitter {respawn.jitter}", "its new codes are latents as they are.")


def _threshold(draft: _Draft, config: TrialConfig, tau: float) -> None:
    """Turn a share of the mean use N / K into a count."""
    size, counts = config.codebook.size, latents_a_step(config)
    if not counts:
        draft.lack(
            f"respawn.threshold {tau}",
            f"set threshold_ema_dead_code to {tau} * (latents of a step) / {size}.",
        )
        return
    least = [tau * count / size for count in counts]
    draft.arguments["threshold_ema_dead_code"] = least[-1]
    draft.lack(
        f"respawn.threshold {tau}",
        f"it has a count instead, {tau} * {counts[-1]} latents a step / {size} codes; change it "
        "with your batch.",
    )
    if len(counts) > 1:
        draft.lack(
            f"respawn.threshold {tau}",
            f"that count is for the bottom level; the top's is {least[0]}.",
        )
    if max(least) > 1 and not config.codebook.kmeans:
        draft.lack(
            "respawn",
            "its counts start at 1, less than the threshold, so the first step replaces nearly "
            "every code.",
        )


def _simvq(config: TrialConfig) -> _Draft:
    book = config.codebook
    assert isinstance(book.update, SimVqUpdate)
    draft = _chain(book, "SimVQ")
    draft.absent |= _BARE
    del draft.absent["rotation"]
    groups, _ = _layout(book)
    draft.arguments |= {
        "dim": book.lookup_dim // groups,
        "commitment_weight": book.update.weight,
        "input_to_quantize_commit_loss_weight": book.commitment.beta / book.update.weight,
        "rotation_trick": book.rotation is not None,
    }
    _rates(draft, book.update)
    if groups > 1:
        draft.lack(
            f"groups.count {groups}",
            "this class has no groups; take one for each, and the mean of their losses.",
        )
    if book.low_dim:
        _lack_projection(draft, book)
        draft.lack(_with_settings("low_dim", book.low_dim), "its lookup is not normalised.")
    return draft


def _fsq(config: TrialConfig) -> _Draft:
    book = config.codebook
    assert isinstance(book.update, FsqUpdate)
    levels = list(book.update.levels)
    arguments = {"dim": book.dim, "levels": levels, "num_codebooks": _layout(book)[0]}
    use = ("z_q, codes = quantizer(latents)", "loss = 0.0  # this class has none")
    draft = _Draft("FSQ", arguments, use, absent=_ABSENT | _BARE)
    if 2 in levels:
        draft.arguments["preserve_symmetry"] = True
        draft.lack(
            f"update.levels {levels}",
            "with a level of 2 it demands its symmetric grid, whose codes lie elsewhere.",
        )
    if book.commitment.beta:
        draft.lack(f"commitment.beta {book.commitment.beta}", "this class has no loss.")
    return draft


def _lfq(config: TrialConfig) -> _Draft:
    book = config.codebook
    sharp, even = book.sample_entropy, book.entropy
    weight = sharp.weight if sharp else 0.0
    arguments = {
        "dim": book.dim,
        "codebook_size": book.size,
        "num_codebooks": _layout(book)[0],
        "commitment_loss_weight": book.commitment.beta,
        "entropy_loss_weight": weight,
    }
    draft = _Draft("LFQ", arguments, absent=_ABSENT | _BARE)
    del draft.absent["entropy"], draft.absent["sample_entropy"]
    if weight:
        draft.arguments["diversity_gamma"] = even.weight / weight if even else 0.0
    for name, block in (("sample_entropy", sharp), ("entropy", even)):
        if block is not None and not weight:
            draft.lack(
                _with_settings(name, block),
                "its entropy_loss_weight, that of sample_entropy, multiplies both terms, and is 0.",
            )
    if sharp and weight:
        draft.lack(
            f"sample_entropy.temperature {sharp.temperature}",
            "call it with inv_temperature = 1 / (temperature * the mean squared distance of the "
            "step's projected latents to their codes), which stands at 100.",
        )
        if even and even.temperature != sharp.temperature:
            draft.lack(
                f"entropy.temperature {even.temperature}", "it has one temperature for both terms."
            )
    return draft


def _layout(book: CodebookConfig) -> tuple[int, int]:
    return book.groups.count if book.groups else 1, book.residual.levels if book.residual else 1


def _with_settings(name: str, block: Block) -> str:
    """Name a block with all of its settings, since none of them became an argument."""
    settings = ", ".join(f"{key} {value}" for key, value in block.model_dump().items())
    return f"{name} ({settings})" if settings else name
