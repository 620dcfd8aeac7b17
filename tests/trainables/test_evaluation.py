"""Held-out metrics recomputed by hand; evaluation looks and does not touch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.trainables.conftest import MIXES, make_config, make_dataset
from tests.trainables.test_model import factory_config
from trainables.codebooks import Codebook
from trainables.config import TrialConfig
from trainables.data import Dataset, Split
from trainables.evaluation import Evaluator
from trainables.metrics import stream_metrics
from trainables.model import from_latents, to_latents
from trainables.stack import Stack

CPU = torch.device("cpu")


def trials(latents: int, strides: tuple[int, ...] = ()) -> list[TrialConfig]:
    """Two lanes in float64."""
    values = make_config({"update": {"kind": "ema"}}, precision="float64").to_dict()
    values["evaluation"]["latents"] = latents
    values["model"]["strides"] = list(strides)
    return [TrialConfig.from_dict(values | {"seed": seed}) for seed in (1, 2)]


def images(count: int = 40) -> Dataset:
    """Whole items of 2 x 6 x 4."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((count, 2, 6, 4)).astype(np.float32)
    split = Split(values, np.arange(count), np.zeros(count, np.int64))
    return replace(
        make_dataset(), train=split, heldout=split, clip_frames=None, example_shape=(2, 6, 4)
    )


def heldout(dataset: Dataset, first: np.ndarray) -> torch.Tensor:
    """The examples that begin at `first`, by slicing."""
    frames = dataset.clip_frames
    values = dataset.heldout.values
    examples = [values[i] if frames is None else values[i : i + frames].T for i in first]
    return torch.from_numpy(np.stack(examples)).double()


def latents_of(stack: Stack, x: torch.Tensor) -> torch.Tensor:
    [z] = stack.encode(x, lambda _, z: z)
    return z


def book_of(stack: Stack) -> Codebook:
    return stack.quantizers[0].codebooks[0]


# More examples than are encoded at a time; latents that fill no whole number of examples.
@pytest.mark.parametrize(
    ("dataset", "latents", "strides", "per_frame"),
    [
        (make_dataset(clips=600), 100 * 8 + 3, (), 1.0),
        (make_dataset(clips=600), 301, (3,), 3 / 8),
        (images(), 40 * 24 - 7, (), 24.0),
        (images(), 200, (2,), 6.0),
    ],
    ids=["clips", "clips at stride 3", "items", "items at stride 2"],
)
def test_metrics_are_those_of_brute_force(
    dataset: Dataset, latents: int, strides: tuple[int, ...], per_frame: float
) -> None:
    stack = Stack(trials(latents, strides), dataset, CPU)
    stack.advance(10)
    evaluator = Evaluator(stack, dataset)
    metrics, [counts] = evaluator.evaluate()
    x = heldout(dataset, evaluator.first)
    z = latents_of(stack, x.expand(2, *x.shape))
    codes = book_of(stack).look_up(to_latents(z))
    losses = {
        "recon_loss": from_latents(book_of(stack).embed(codes), z),
        "recon_loss_unquantized": z,
    }
    for lane in range(2):
        expected = np.bincount(codes[lane, :latents].numpy(), minlength=16)
        assert counts[lane].tolist() == expected.tolist()
        assert counts[lane].sum() == latents
        for name, value in stream_metrics(expected, 16).items():
            assert metrics[lane][name] == pytest.approx(value)
        bits = math.log2(metrics[lane]["perplexity"])
        assert metrics[lane]["bits_per_frame"] == pytest.approx(per_frame * bits)
        assert metrics[lane]["bits_per_frame_nominal"] == pytest.approx(per_frame * 4)
        for name, inputs in losses.items():
            error = (stack.decode([inputs])[lane] - x).square().mean().item()
            assert metrics[lane][name] == pytest.approx(error, rel=1e-9)
    assert metrics[0]["recon_loss"] != metrics[1]["recon_loss"]


@pytest.mark.parametrize("mix", ["all", "all gradient"])
def test_evaluation_changes_nothing(mix: str) -> None:
    dataset = make_dataset()
    looked_at, left_alone = (Stack([make_config(MIXES[mix])], dataset, CPU) for _ in range(2))
    looked_at.advance(6)
    before, random = looked_at.lane_state(0), torch.get_rng_state()
    evaluator = Evaluator(looked_at, dataset)
    first, second = evaluator.evaluate(), evaluator.evaluate()
    assert first[0] == second[0]
    assert np.array_equal(first[1], second[1])
    after = looked_at.lane_state(0)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), random)
    # And training goes on as if nobody had looked.
    looked_at.advance(6)
    left_alone.advance(6)
    left_alone.advance(6)
    mine, theirs = looked_at.lane_state(0), left_alone.lane_state(0)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_evaluation_leaves_batch_norm_statistics_alone() -> None:
    dataset = make_dataset()
    stack = Stack([factory_config("normed")], dataset, CPU)
    stack.advance(5)
    before = {name: value.clone() for name, value in stack.buffers.items()}
    assert before
    Evaluator(stack, dataset).evaluate()
    assert all(torch.equal(before[name], value) for name, value in stack.buffers.items())
    stack.advance(5)  # training moves them again
    name = "encoder.norm.running_mean"
    assert not torch.equal(before[name], stack.buffers[name])


# --- which examples ------------------------------------------------------------------------------


def chosen(values: dict[str, Any], dataset: Dataset) -> list[int]:
    evaluator = Evaluator(Stack([TrialConfig.from_dict(values)], dataset, CPU), dataset)
    assert evaluator.warning is None
    return evaluator.first.tolist()


def test_the_same_examples_count_for_every_trial_of_a_split() -> None:
    dataset, values = make_dataset(clips=400), make_config().to_dict()
    first = chosen(values, dataset)
    assert len(first) == len(set(first)) == 8  # 64 latents of 8 frames
    assert set(first) < set(dataset.heldout.starts.tolist())
    assert first == sorted(first)
    others: list[dict[str, Any]] = [
        {"seed": 99},
        {"training": {**values["training"], "batch_size": 7, "lr": 0.1}},
        {"codebook": {"size": 64, "dim": 2}},
        {"model": {**values["model"], "width": 3}},
    ]
    for change in others:
        assert chosen(values | change, dataset) == first
    other_split = values | {"data": {**values["data"], "split_seed": 1}}
    assert chosen(other_split, dataset) != first


def test_a_smaller_subsample_is_part_of_a_larger_one() -> None:
    dataset, values = make_dataset(clips=400), make_config().to_dict()
    small, large = (
        set(chosen(values | {"evaluation": {"latents": n}}, dataset)) for n in (64, 400)
    )
    assert len(large) == 50
    assert small < large


@pytest.mark.parametrize(("latents", "warned"), [(119, False), (120, False), (121, True)])
def test_too_few_latents_are_a_warning(latents: int, warned: bool) -> None:
    dataset = make_dataset()  # 15 held-out clips of 8 frames
    stack = Stack(trials(latents)[:1], dataset, CPU)
    evaluator = Evaluator(stack, dataset)
    [metrics], [counts] = evaluator.evaluate()
    assert counts.sum() == min(latents, 120)
    assert math.isfinite(metrics["recon_loss"])
    if warned:
        assert evaluator.warning == (
            "the held-out split has 120 latents, 121 were asked for: "
            "large perplexities come out low"
        )
    else:
        assert evaluator.warning is None


# --- what the numbers mean -----------------------------------------------------------------------


def test_a_growing_codebook_counts_the_codes_in_use() -> None:
    dataset = make_dataset()
    config = make_config({"update": {"kind": "ema"}, "growth": {"start": 4, "at": 0.5}})
    stack = Stack([config], dataset, CPU)
    seen = {}
    for steps in (9, 11):  # growth comes with step 10
        stack.advance(steps)
        [metrics], [counts] = Evaluator(stack, dataset).evaluate()
        in_use = seen[stack.steps[0]] = metrics["codes_in_use"]
        assert counts[0, in_use:].sum() == 0
        assert metrics["usage"] == pytest.approx(metrics["perplexity"] / in_use)
        assert metrics["bits_per_frame_nominal"] == math.log2(in_use)
    assert seen == {9: 4, 20: 16}


def two_lanes(latents: int = 120) -> tuple[Stack, Dataset]:
    dataset = make_dataset()
    stack = Stack(trials(latents), dataset, CPU)
    stack.advance(30)
    return stack, dataset


def test_where_every_latent_is_a_code_quantizing_costs_nothing() -> None:
    dataset = make_dataset()
    values = make_config({"size": 120}, precision="float64").to_dict()
    values["evaluation"]["latents"] = 120
    stack = Stack([TrialConfig.from_dict(values)], dataset, CPU)
    x = heldout(dataset, dataset.heldout.starts)
    book_of(stack).adopt("codebook", to_latents(latents_of(stack, x.unsqueeze(0))))
    [metrics], [counts] = Evaluator(stack, dataset).evaluate()
    assert counts.tolist() == [[1.0] * 120]
    assert metrics["recon_loss"] == pytest.approx(metrics["recon_loss_unquantized"], rel=1e-9)


def test_a_decoder_that_listens_to_the_codes_suffers_from_shuffling() -> None:
    dataset = make_dataset(clips=15)
    dataset = replace(dataset, heldout=dataset.train)  # what it has learnt by heart
    stack = Stack([make_config({"update": {"kind": "ema"}}, lr=1e-2)], dataset, CPU)
    stack.advance(150)
    [metrics], _ = Evaluator(stack, dataset).evaluate()
    assert metrics["recon_loss_shuffled"] > 3 * metrics["recon_loss"]
    assert metrics["recon_loss_unquantized"] < 2 * metrics["recon_loss"]


def test_with_one_code_for_everything_shuffling_changes_nothing() -> None:
    stack, dataset = two_lanes()
    codebook = book_of(stack).state["codebook"].detach().clone()
    codebook[:, 1:] = 1e3
    book_of(stack).adopt("codebook", codebook)
    metrics, _ = Evaluator(stack, dataset).evaluate()
    for lane in metrics:
        assert lane["perplexity_plugin"] == 1
        assert lane["recon_loss_shuffled"] == lane["recon_loss"]
        assert lane["recon_loss_unquantized"] != lane["recon_loss"]


def test_a_decoder_that_is_deaf_to_the_codes_is_found_out() -> None:
    stack, dataset = two_lanes()
    with torch.no_grad():
        stack.adam.parameters["decoder.in.weight"].zero_()
    for lane in Evaluator(stack, dataset).evaluate()[0]:
        assert lane["recon_loss"] == lane["recon_loss_shuffled"] == lane["recon_loss_unquantized"]


def test_shuffled_means_the_codes_of_other_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    stack, dataset = two_lanes()
    evaluator = Evaluator(stack, dataset)
    usual, _ = evaluator.evaluate()
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n))
    for lane in evaluator.evaluate()[0]:
        assert lane["recon_loss_shuffled"] == lane["recon_loss"]
    monkeypatch.setattr(torch, "randperm", lambda n, generator: torch.arange(n).flip(0))
    backwards, _ = evaluator.evaluate()
    x = heldout(dataset, evaluator.first)
    z = latents_of(stack, x.expand(2, *x.shape))
    codes = book_of(stack).look_up(to_latents(z)).flip(1)
    x_hat = stack.decode([from_latents(book_of(stack).embed(codes), z)])
    for lane in range(2):
        expected = (x_hat[lane] - x).square().mean().item()
        assert backwards[lane]["recon_loss_shuffled"] == pytest.approx(expected)
        assert usual[lane]["recon_loss"] == backwards[lane]["recon_loss"]
