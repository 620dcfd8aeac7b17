"""VQ-VAE-2: a top and a bottom level, each with a codebook of its own."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainables.conftest import make_config, make_dataset
from trainables.config import TrialConfig
from trainables.config_model import HierarchicalModel
from trainables.evaluation import Evaluator
from trainables.hierarchy import HierarchicalConvolutions
from trainables.metrics import stream_metrics
from trainables.model import latent_shapes, one_lane, to_latents
from trainables.stack import Stack

CPU = torch.device("cpu")


def config(**values: object) -> TrialConfig:
    base = make_config({"update": {"kind": "ema"}, "respawn": {"period": 12}}).to_dict()
    base["training"]["precision"] = "float64"
    base["model"] = {"kind": "hierarchical", "width": 8, "depth": 1, **values}
    return TrialConfig.from_dict(base)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.integers(1, 17), min_size=1, max_size=2),
    strides=st.lists(st.integers(1, 3), max_size=2),
    top=st.lists(st.integers(1, 4), min_size=1, max_size=2),
)
def test_any_sizes_go_down_twice_and_back_up(
    sizes: list[int], strides: list[int], top: list[int]
) -> None:
    block = HierarchicalModel(width=3, depth=1, strides=strides, top_strides=top)
    model = HierarchicalConvolutions(block, (2, *sizes), 4)
    expected = []
    for chain in (strides + top, strides):
        shape = sizes
        for stride in chain:
            shape = [math.ceil(n / stride) for n in shape]
        expected.append(tuple(shape))
    assert latent_shapes(model, (2, *sizes)) == expected
    z_q = [torch.zeros(1, 2, 4, *shape) for shape in expected]
    assert model.decode(one_lane(model), z_q).shape == (1, 2, 2, *sizes)
    assert {k: v.shape for k, v in model.initial(0).items()} == {
        name: torch.Size(shape) for name, shape in model.shapes.items()
    }


def test_the_bottom_sees_the_top_and_the_decoder_sees_both() -> None:
    model = HierarchicalConvolutions(HierarchicalModel(width=8, depth=1), (3, 8), 4)
    parameters = one_lane(model)
    features = model.encode(parameters, torch.randn(1, 2, 3, 8))
    top = model.latents(parameters, features, []).detach().requires_grad_()
    bottom = model.latents(parameters, features, [top])
    assert torch.autograd.grad(bottom.sum(), top, retain_graph=True)[0].abs().sum() > 0
    x_hat = model.decode(parameters, [top, bottom])
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(x_hat.sum(), [top, bottom]))


def test_lanes_equal_trials_and_a_saved_lane_goes_on() -> None:
    dataset = make_dataset()
    values = config().to_dict()
    trials = [TrialConfig.from_dict({**values, "seed": seed}) for seed in (1, 2)]
    together = Stack(trials, dataset, CPU)
    together.advance(9)
    saved = [together.lane_state(lane) for lane in (0, 1)]
    together.advance(11)
    for lane, trial in enumerate(trials):
        alone = Stack([trial], dataset, CPU)
        alone.load_lane(0, saved[lane], 36)
        alone.advance(11)
        mine = alone.lane_state(0)
        assert {"codebook.top.codebook", "codebook.bottom.codebook"} <= mine.keys()
        assert not torch.equal(mine["codebook.top.codebook"], mine["codebook.bottom.codebook"])
        for name, value in together.lane_state(lane).items():
            torch.testing.assert_close(value, mine[name], rtol=1e-9, atol=1e-10, msg=name)


def test_metrics_count_each_level_at_its_own_rate() -> None:
    dataset = make_dataset(clips=600)
    stack = Stack([config(top_strides=[2])], dataset, CPU)
    stack.advance(10)
    evaluator = Evaluator(stack, dataset)
    [metrics], counts = evaluator.evaluate()
    assert [count.sum() for count in counts] == [32, 64]  # of 64 latents to count, at the bottom
    for i, count in enumerate(counts):
        for name, value in stream_metrics(count[0], 16).items():
            assert metrics[f"stream_{i}/{name}"] == pytest.approx(value)
    bits = [math.log2(metrics[f"stream_{i}/perplexity"]) for i in (0, 1)]
    assert metrics["bits_per_frame"] == pytest.approx(bits[0] / 2 + bits[1])
    assert metrics["bits_per_frame_nominal"] == pytest.approx(4 / 2 + 4)
    assert metrics["perplexity"] == pytest.approx(
        np.mean([metrics[f"stream_{i}/perplexity"] for i in (0, 1)])
    )
    # The codes by hand: the top's, then the bottom's given the quantized top.
    seen: list[torch.Tensor] = []

    def through(quantizer: object, z: torch.Tensor) -> torch.Tensor:
        [book] = quantizer.codebooks  # type: ignore[attr-defined]
        seen.append(torch.cdist(z, book.state["codebook"]).argmin(-1))
        return book.embed(seen[-1])

    frames = evaluator.first[:, None] + np.arange(8)
    x = torch.from_numpy(dataset.heldout.values[frames]).double().mT.unsqueeze(0)
    z_q = stack.encode(x, through)
    assert [np.bincount(codes[0], minlength=16).tolist() for codes in seen] == [
        count[0].tolist() for count in counts
    ]
    error = (stack.decode(z_q) - x).square().mean().item()
    assert metrics["recon_loss"] == pytest.approx(error)
    assert to_latents(z_q[0]).shape[1] * 2 == to_latents(z_q[1]).shape[1]
