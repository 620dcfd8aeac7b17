"""`vqtune export --format vector-quantize-pytorch`: nothing of a config is lost without a word."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from analysis.ranking import best
from tests.vqtune.conftest import Searched
from tests.vqtune.peers import DIM, SIZE, Peer, make_config
from trainables import config_codebook as blocks
from trainables.config import TrialConfig
from trainables.errors import InputError
from trainables.model import latent_shapes
from trainables.model_kinds import build_model
from vqtune.cli import main
from vqtune.latent_counts import latents_a_step
from vqtune.peer_export import peer_arguments

EMA = {"update": {"kind": "ema"}}
SIMVQ = {"update": {"kind": "simvq"}}
FSQ = {"update": {"kind": "fsq", "levels": [8, 8]}}
LFQ = {"update": {"kind": "lfq"}}
PAIR = {"entropy": {"weight": 0.3}, "sample_entropy": {"weight": 0.1}}

# codebook: class, arguments among others, the keys of all lines on what is lacking.
CASES: dict[str, tuple[dict[str, Any], str, dict[str, Any], set[str]]] = {
    "gradient": (
        {},
        "VectorQuantize",
        {"ema_update": False, "learnable_codebook": True, "commitment_weight": 0.25},
        {"update.weight 1.0", "first codes"},
    ),
    "one weight": (
        {"update": {"weight": 0.25}},
        "VectorQuantize",
        {"commitment_weight": 0.25, "rotation_trick": False},
        {"first codes"},
    ),
    "no commitment": (
        {"commitment": {"beta": 0.0}},
        "VectorQuantize",
        {"commitment_weight": 0.0},
        {"update.weight 1.0", "first codes"},
    ),
    "rates": (
        {"update": {"weight": 0.25, "lr_ratio": 2.0, "lr_final": 0.1}},
        "VectorQuantize",
        {},
        {"update.lr_ratio 2.0", "update.lr_final 0.1", "first codes"},
    ),
    "ema": (
        {"update": {"kind": "ema", "decay": 0.9, "accumulate": 3}, "rotation": {}},
        "VectorQuantize",
        {"ema_update": True, "decay": 0.9, "eps": 1e-20, "rotation_trick": True},
        {"update ema", "update.accumulate 3", "first codes"},
    ),
    "kmeans": (
        EMA | {"kmeans": {"iterations": 5}},
        "VectorQuantize",
        {"kmeans_init": True, "kmeans_iters": 5},
        {"update ema", "kmeans.latents 16384"},
    ),
    "kmeans without iterations": (
        EMA | {"kmeans": {"iterations": 0}},
        "VectorQuantize",
        {"kmeans_iters": 1},
        {"update ema", "kmeans.iterations 0", "kmeans.latents 16384"},
    ),
    "respawn": (
        EMA | {"respawn": {"buffer": 50}},
        "VectorQuantize",
        {"threshold_ema_dead_code": 0.1 * 512 / SIZE, "decay": 0.99},
        {"update ema", "first codes", "respawn.threshold 0.1", "respawn.period 3200"}
        | {"respawn.buffer 50", "respawn.jitter 0.01"},
    ),
    "respawn of learned codes": (
        {"respawn": {"jitter": 0.0, "threshold": 0.5}, "update": {"weight": 0.25}},
        "VectorQuantize",
        {"threshold_ema_dead_code": 4.0, "decay": 0.995, "ema_update": False},
        {"first codes", "respawn.threshold 0.5", "respawn", "respawn.period 3200"},
    ),
    "cosine": (
        EMA | {"cosine": {}},
        "VectorQuantize",
        {"use_cosine_sim": True},
        {"update ema"},
    ),
    "cosine of learned codes": (
        {"cosine": {}},
        "VectorQuantize",
        {"learnable_codebook": True},
        {"update.weight 1.0", "cosine", "first codes"},
    ),
    "low dim": (
        EMA | {"low_dim": {"dim": 4}},
        "VectorQuantize",
        {"dim": DIM, "codebook_dim": 4, "use_cosine_sim": True},
        {"update ema", "low_dim (dim 4)"},
    ),
    "low dim of learned codes": (
        {"low_dim": {"dim": 4}},
        "VectorQuantize",
        {"codebook_dim": 4},
        {"update.weight 1.0", "low_dim (dim 4)", "first codes"},
    ),
    "groups": (
        EMA | {"groups": {"count": 4}},
        "VectorQuantize",
        {"dim": DIM, "heads": 4, "separate_codebook_per_head": True, "codebook_dim": 4},
        {"update ema", "first codes"},
    ),
    "residual": (
        EMA | {"residual": {"levels": 3, "dropout": 1.0}},
        "ResidualVQ",
        {"num_quantizers": 3, "quantize_dropout": True},
        {"update ema", "first codes", "residual.levels 3"},
    ),
    "low residual": (
        EMA | {"residual": {"levels": 2}, "low_dim": {"dim": 4}},
        "ResidualVQ",
        {"dim": DIM, "codebook_dim": 4, "quantize_dropout": False},
        {"update ema", "first codes", "residual.levels 2", "low_dim (dim 4)"},
    ),
    "low grouped residual": (
        {"residual": {"dropout": 0.5}, "groups": {}, "low_dim": {"dim": 4}},
        "GroupedResidualVQ",
        {"dim": 4, "groups": 2, "num_quantizers": 2, "quantize_dropout": True},
        {"update.weight 1.0", "first codes", "residual.levels 2", "residual.dropout 0.5"}
        | {"low_dim (dim 4)"},
    ),
    "simvq": (
        {"update": {"kind": "simvq", "weight": 2.0}, "rotation": {}, "stochastic": {}},
        "SimVQ",
        {
            "dim": DIM,
            "codebook_size": SIZE,
            "commitment_weight": 2.0,
            "input_to_quantize_commit_loss_weight": 0.125,
            "rotation_trick": True,
        },
        {"stochastic (temperature 0.5, until 0.5)"},
    ),
    "grouped simvq": (
        SIMVQ | {"groups": {}, "residual": {}, "low_dim": {"dim": 4}},
        "ResidualSimVQ",
        {"dim": 2, "num_quantizers": 2, "rotation_trick": False},
        {"groups.count 2", "residual.levels 2", "low_dim (dim 4)"},
    ),
    "fsq": (
        FSQ | {"groups": {}, "rotation": {}} | PAIR,
        "FSQ",
        {"dim": DIM, "levels": [8, 8], "num_codebooks": 2},
        {"commitment.beta 0.25", "rotation", "entropy (weight 0.3, temperature 0.1)"}
        | {"sample_entropy (weight 0.1, temperature 0.1)"},
    ),
    "fsq of two levels": (
        {"update": {"kind": "fsq", "levels": [2, 32]}, "commitment": {"beta": 0.0}},
        "FSQ",
        {"preserve_symmetry": True},
        {"update.levels [2, 32]"},
    ),
    "lfq": (
        LFQ,
        "LFQ",
        {"codebook_size": SIZE, "commitment_loss_weight": 0.25, "entropy_loss_weight": 0.0},
        set(),
    ),
    "lfq pair": (
        LFQ | PAIR | {"groups": {}},
        "LFQ",
        {"num_codebooks": 2, "entropy_loss_weight": 0.1, "diversity_gamma": 0.3 / 0.1},
        {"sample_entropy.temperature 0.1"},
    ),
    "lfq of two temperatures": (
        LFQ | {"entropy": {"temperature": 2.0}, "sample_entropy": {}},
        "LFQ",
        {"diversity_gamma": 1.0},
        {"sample_entropy.temperature 0.1", "entropy.temperature 2.0"},
    ),
    "half of the lfq pair": (
        LFQ | {"entropy": {}},
        "LFQ",
        {"entropy_loss_weight": 0.0},
        {"entropy (weight 0.1, temperature 0.1)"},
    ),
    "what the library lacks": (
        EMA
        | PAIR
        | {"stochastic": {}, "normalization": {"kind": "batch"}, "dim_growth": {"start": 4}}
        | {"least_recent": {}, "reanchor": {}, "growth": {}},
        "VectorQuantize",
        {"dim": DIM},
        {"update ema", "first codes", "entropy (weight 0.3, temperature 0.1)"}
        | {"sample_entropy (weight 0.1, temperature 0.1)", "growth (start 64, at 0.3, jitter 0.01)"}
        | {"stochastic (temperature 0.5, until 0.5)", "normalization (kind batch, momentum 0.1)"}
        | {"dim_growth (start 4, at 0.3)", "least_recent (patience 8000, jitter 0.01)"}
        | {"reanchor (decay 0.99)"},
    ),
}


def keys(config: TrialConfig) -> set[str]:
    return {line.partition(": ")[0] for line in peer_arguments(config).lacking}


def run_forward_and_backward(config: TrialConfig) -> None:
    peer = Peer(config)
    for seed in range(2):
        generator = torch.Generator().manual_seed(seed)
        latents = torch.randn(2, 32, peer.arguments.arguments["dim"], generator=generator)
        latents.requires_grad_()
        z_q, _, loss = peer(latents)
        (z_q.square().sum() + loss).backward()
        assert z_q.shape == latents.shape
        assert loss.isfinite()
        assert latents.grad is not None
        assert latents.grad.isfinite().all()
        assert latents.grad.any()


@pytest.mark.parametrize("case", CASES)
def test_each_technique(case: str) -> None:
    codebook, class_name, some, lacking = CASES[case]
    config = make_config(codebook)
    peer = peer_arguments(config)
    assert peer.class_name == class_name
    assert {name: peer.arguments.get(name) for name in some} == some
    assert keys(config) == lacking
    run_forward_and_backward(config)


@pytest.mark.parametrize("case", CASES)
def test_nothing_is_asked_for_that_the_config_has_not(case: str) -> None:
    codebook, *_ = CASES[case]
    arguments = peer_arguments(make_config(codebook)).arguments
    for technique, names in {
        "respawn": {"threshold_ema_dead_code"},
        "kmeans": {"kmeans_init", "kmeans_iters"},
        "groups": {"heads", "groups"},
        "residual": {"num_quantizers", "quantize_dropout"},
    }.items():
        if technique not in codebook:
            assert not names & arguments.keys()
    assert not any("diversity_loss" in name or "stochastic" in name for name in arguments)


# --- nothing is lost ----------------------------------------------------------------------------

UPDATES: tuple[type[BaseModel], ...] = (
    *(blocks.GradientUpdate, blocks.EmaUpdate, blocks.SimVqUpdate),
    *(blocks.FsqUpdate, blocks.LfqUpdate),
)
# Every block of a codebook by its key, read from the config, so that a new one is tested, too.
BLOCKS: dict[str, tuple[type[BaseModel], ...]] = {
    name: tuple(kind for kind in get_args(info.annotation) if kind is not type(None))
    for name, info in blocks.CodebookConfig.model_fields.items()
    if name not in ("size", "dim", "commitment")
} | {"update": UPDATES, "commitment": (blocks.Commitment,)}
BLOCKS["normalization"] = (blocks.BatchNorm, blocks.LayerNorm)
OTHERS = {"groups.count": 4, "residual.levels": 3, "update.levels": (2, 32)}


def settings_of(name: str, kind: type[BaseModel]) -> dict[str, tuple[Any, Any]]:
    """Of each field of a block its default, and another value that is allowed."""
    found = {}
    for key, info in kind.model_fields.items():
        default = info.default
        if key == "kind":
            found[key] = (default, default)
        elif f"{name}.{key}" in OTHERS:
            found[key] = ((8, 8) if key == "levels" else default, OTHERS[f"{name}.{key}"])
        elif isinstance(default, float):
            found[key] = (default, 0.37)
        else:
            found[key] = (default, default // 2 or default + 2)
    return found


@st.composite
def codebooks(draw: st.DrawFn) -> dict[str, Any]:
    """As many techniques as go together, in any order, with defaults and other values."""
    codebook: dict[str, Any] = {"size": SIZE, "dim": DIM}
    others = [name for name in BLOCKS if name != "update"]
    wanted = draw(st.permutations(others))[: draw(st.integers(0, len(others)))]
    for name in ("update", *wanted):
        kind = draw(st.sampled_from(BLOCKS[name]))
        pairs = settings_of(name, kind).items()
        more = codebook | {name: {key: draw(st.sampled_from(pair)) for key, pair in pairs}}
        codebook = more if or_refused(more) else codebook
    return codebook


def or_refused(codebook: dict[str, Any]) -> TrialConfig | None:
    try:
        return TrialConfig.from_dict({"codebook": codebook})
    except InputError:
        return None


def fits(kind: type[BaseModel], values: dict[str, Any]) -> bool:
    return "kind" not in values or kind.model_fields["kind"].default == values["kind"]


def changed(codebook: dict[str, Any]) -> list[dict[str, Any]]:
    """The codebook with one setting at its other value, or without one technique."""
    found = []
    for name, values in codebook.items():
        if name in ("size", "dim"):
            continue
        if name not in ("update", "commitment"):
            found.append({key: block for key, block in codebook.items() if key != name})
        (kind,) = (k for k in BLOCKS[name] if fits(k, values))
        for key, pair in settings_of(name, kind).items():
            found += [codebook | {name: values | {key: x}} for x in pair if x != values[key]]
    return found


def test_every_block_is_known() -> None:
    assert all(BLOCKS.values())
    assert {*BLOCKS, "size", "dim"} == set(blocks.CodebookConfig.model_fields)


@settings(max_examples=150, deadline=None)
@given(codebooks())
def test_every_setting_of_every_mix_shows(codebook: dict[str, Any]) -> None:
    """What is neither an argument nor named would leave the program as it is without it."""
    config = TrialConfig.from_dict({"codebook": codebook})
    run_forward_and_backward(config)
    peer = peer_arguments(config)
    for other in changed(codebook):
        other_config = or_refused(other)
        if other_config is not None:
            assert peer_arguments(other_config) != peer, other


# --- respawn ------------------------------------------------------------------------------------

PLACES: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "clips": ({"data": {"kind": "synthetic", "clip_frames": 50}}, (1, 50)),
    "strided clips": ({"model": {"strides": [2, 3]}}, (1, 32)),
    "digits": ({"data": {"kind": "digits"}, "model": {"strides": [3]}}, (1, 8, 8)),
    "images": ({"data": {"kind": "images", "path": "x", "size": 20}}, (3, 20, 20)),
    "a hierarchy": (
        {
            "data": {"kind": "images", "path": "x", "size": 21},
            "model": {"kind": "hierarchical", "strides": [2], "top_strides": [2, 3]},
        },
        (3, 21, 21),
    ),
}


@pytest.mark.parametrize("case", PLACES)
def test_the_threshold_is_a_share_of_the_mean_use(case: str) -> None:
    """N is counted here in closed form, and by the model itself."""
    values, shape = PLACES[case]
    codebook = EMA | {"respawn": {"threshold": 0.25}}
    config = make_config(codebook, **values, training={"batch_size": 6})
    small = config.model.model_copy(update={"width": 4, "depth": 1})
    shapes = latent_shapes(build_model(small, shape, 2), shape)
    counts = [6 * torch.Size(each).numel() for each in shapes]
    assert list(latents_a_step(config)) == counts
    peer = peer_arguments(config)
    assert peer.arguments["threshold_ema_dead_code"] == 0.25 * counts[-1] / SIZE
    if len(counts) > 1:
        assert any(
            line.endswith(f"the top's is {0.25 * counts[0] / SIZE}.") for line in peer.lacking
        )
        assert any(line.startswith("model.kind hierarchical: ") for line in peer.lacking)


@pytest.mark.parametrize(
    "values",
    [
        {"data": {"kind": "arrays", "path": "x"}},
        {"data": {"kind": "factory", "factory": "mine:load"}},
        {"model": {"kind": "factory", "factory": "mine:build"}},
    ],
)
def test_a_threshold_that_the_config_does_not_tell_is_named(values: dict[str, Any]) -> None:
    peer = peer_arguments(make_config(EMA | {"respawn": {}}, **values))
    assert "threshold_ema_dead_code" not in peer.arguments
    told = f"set threshold_ema_dead_code to 0.1 * (latents of a step) / {SIZE}."
    assert f"respawn.threshold 0.1: {told}" in peer.lacking


def test_learned_codes_die_without_an_ema_update() -> None:
    """After the steps that the printed decay gives an unused code, and not before."""
    config = make_config({"respawn": {"period": 160}}, training={"batch_size": 16})
    peer = Peer(config)
    decay, least = (peer.arguments.arguments[k] for k in ("decay", "threshold_ema_dead_code"))
    assert (decay, least) == (0.9, 0.8)
    book = peer.quantizer._codebook
    book.embed.data[:] = torch.arange(SIZE)[:, None] * 10.0
    latents = torch.zeros(2, 32, DIM)
    for step in itertools.count(1):
        used = book.embed.detach().abs().sum(-1) == 0
        assert used.sum() == 1
        peer(latents)
        if decay**step < least:
            break
    assert (book.embed == 0).all()


def test_a_new_code_of_the_library_has_one_step() -> None:
    peer = Peer(make_config(EMA | {"respawn": {}}))
    book = peer.quantizer._codebook
    book.cluster_size.data[:] = 0
    latents = torch.randn(4, 128, DIM)
    peer(latents)
    assert (book.cluster_size == peer.arguments.arguments["threshold_ema_dead_code"]).all()
    peer(torch.full_like(latents, 100.0))  # all of which one code gets
    assert (book.embed == 100).all(-1).sum() == SIZE - 1


def test_a_threshold_above_one_replaces_nearly_all_codes_at_once() -> None:
    config = make_config({"respawn": {"threshold": 0.5}})
    assert "respawn" in keys(config)
    peer = Peer(config)
    before = peer.quantizer.codebook.detach().clone()
    peer(torch.randn(16, 32, DIM))
    assert (peer.quantizer.codebook != before).any(-1).float().mean() > 0.9


@pytest.mark.parametrize("case", ["ema", "groups", "low residual"])
def test_the_first_codes_are_as_far_out_as_told(case: str) -> None:
    config = make_config(CASES[case][0])
    (line,) = (line for line in peer_arguments(config).lacking if line.startswith("first codes"))
    theirs, ours = (float(number) for number in re.findall(r"±([0-9.]+[0-9])", line))
    quantizer = Peer(config).quantizer
    first = quantizer.layers[0] if hasattr(quantizer, "layers") else quantizer
    assert first._codebook.embed.abs().max().item() == pytest.approx(theirs, rel=0.05)
    assert ours == pytest.approx(1 / SIZE, rel=0.05)


# --- the command --------------------------------------------------------------------------------


def test_the_best_are_printed_as_programs(
    finished: Searched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["export", str(finished.run), "--format", "vector-quantize-pytorch"]
    result = CliRunner().invoke(main, [*command, "--top", "2"])
    assert result.exit_code == 0
    chosen = best(finished.records, 2)
    programs = ["# " + part for part in ("\n\n" + result.stdout).split("\n\n# ")[1:]]
    assert len(programs) == len(chosen)
    for program, trial, config in zip(programs, chosen["trial_id"], chosen["config"], strict=True):
        assert program.startswith(f"# {trial} of demo, for vector-quantize-pytorch ")
        assert all(len(line) <= 98 for line in program.splitlines())
        names: dict[str, Any] = {}
        exec(program, names)
        assert names["quantizer"].codebook.shape == (16, 4)
        assert names["quantizer"].commitment_weight == config["codebook"]["commitment"]["beta"]
    assert list(tmp_path.iterdir()) == []


def test_a_printed_format_takes_no_folder() -> None:
    command = ["export", "x", "--format", "vector-quantize-pytorch", "--out", "y"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 2
    assert "--out needs --format yaml" in result.stderr


def test_a_run_without_a_complete_trial_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/x").mkdir(parents=True)
    (tmp_path / "runs/x/spec.yaml").write_text("objectives: {perplexity: max, recon_loss: min}\n")
    result = CliRunner().invoke(main, ["export", "x", "--format", "vector-quantize-pytorch"])
    assert result.exit_code == 2
    assert "nothing to export" in result.stderr
