"""A user's own encoder and decoder as a model: their modules, for all lanes at once or in turn."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from trainables.config_model import FactoryModel
from trainables.errors import InputError
from trainables.factory import load_factory, told
from trainables.model import Parameters, one_lane
from trainables.stackable import why_in_turn
from trainables.stacked_modules import run_in_turn, run_stacked

# What `ModuleModel.unstackable` has found.
_UNSTACKABLE: dict[Hashable, str | None] = {}


class ModuleModel:
    """A user's encoder and decoder: lanes in one pass if both allow it, else one after another."""

    levels = 1

    def __init__(self, config: FactoryModel, example_shape: tuple[int, ...], dim: int) -> None:
        """Build the modules once and check their shapes."""
        self.config, self.example_shape, self.dim = config, example_shape, dim
        self._where = f"model.factory {config.factory}"
        self._build = load_factory(config.factory)
        self._seeds: list[int] = []
        self.encoder, self.decoder = self._modules(0)
        self._check()

    def initial(self, seed: int) -> dict[str, Tensor]:
        """Parameters of modules built under `seed`, without frozen ones."""
        encoder, decoder = self._modules(seed)
        sides = {"encoder": encoder, "decoder": decoder}
        return {
            f"{side}.{name}": value.detach().clone()
            for side, module in sides.items()
            for name, value in module.named_parameters()
            if value.requires_grad
        }

    def buffers(self) -> dict[str, Tensor]:
        """Buffers and frozen parameters as the modules were built."""
        sides = {"encoder": self.encoder, "decoder": self.decoder}
        return {
            f"{side}.{name}": value.detach().clone()
            for side, module in sides.items()
            for name, value in [*module.named_buffers(), *module.named_parameters()]
            if not value.requires_grad
        }

    def train(self, mode: bool) -> None:
        """Switch the modules' own mode."""
        self.encoder.train(mode)
        self.decoder.train(mode)
        self._seeds = []

    def draw(self, seeds: Sequence[int]) -> None:
        """Dropout and the like draw from torch's own generator: set it for each lane and step."""
        self._seeds = list(seeds)

    @functools.cached_property
    def unstackable(self) -> str | None:
        """Tried when first asked for, on modules made for that: a single trial on a CPU never asks.

        Once for all trials of a process whose modules are built alike.
        """
        alike = (self._build, self.config.model_dump_json(), self.example_shape, self.dim)
        if alike not in _UNSTACKABLE:
            _UNSTACKABLE[alike] = self._why_unstackable()
        return _UNSTACKABLE[alike]

    def _why_unstackable(self) -> str | None:
        lanes = [self.initial(seed) | self.buffers() for seed in range(2)]
        values = {name: torch.stack([lane[name] for lane in lanes]) for name in lanes[0]}
        trained = self.initial(0)
        shapes = {"encoder": self.example_shape, "decoder": self._latent_shape}
        for place, (side, shape) in enumerate(shapes.items()):
            build = functools.partial(self._module, place)
            mine, names = _of_side(side, values), list(_of_side(side, trained))
            if reason := why_in_turn(build, mine, names, shape):
                return f"{side}: {reason}"
        return None

    def encode(self, parameters: Parameters, x: Tensor) -> list[Tensor]:
        """Inputs [L, B, C, ...] to latents [L, B, d, ...]."""
        return [self._run("encoder", self.encoder, parameters, x)]

    def latents(
        self, parameters: Parameters, features: Sequence[Tensor], z_q: Sequence[Tensor]
    ) -> Tensor:
        """The only features there are."""
        return features[0]

    def decode(self, parameters: Parameters, z_q: Sequence[Tensor]) -> Tensor:
        """Latents [L, B, d, ...] to reconstructions [L, B, C, ...]."""
        return self._run("decoder", self.decoder, parameters, z_q[0])

    def _run(self, side: str, module: nn.Module, parameters: Parameters, x: Tensor) -> Tensor:
        mine = _of_side(side, parameters)
        # One lane keeps to the plain call, and with it a trial its numbers to the last bit.
        if x.shape[0] > 1 and self.unstackable is None:
            return run_stacked(module, mine, x)
        # Not the same noise in both: they may have layers of one shape.
        seeds = [2 * seed + (side == "decoder") for seed in self._seeds]
        return run_in_turn(module, mine, x, seeds)

    def _module(self, place: int) -> nn.Module:
        return self._modules(0)[place]

    def _modules(self, seed: int) -> tuple[nn.Module, nn.Module]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                pair = self._build(
                    example_shape=self.example_shape, dim=self.dim, **self.config.arguments
                )
            except Exception as error:
                raise InputError(f"raised {type(error).__name__}: {error}", self._where) from error
        match pair:
            case (nn.Module() as encoder, nn.Module() as decoder):
                return encoder, decoder
        raise InputError(
            f"returned {type(pair).__name__}, allowed: (encoder, decoder), two torch.nn.Module",
            self._where,
        )

    def _check(self) -> None:
        if not self.initial(0):
            raise InputError("found no parameters to train in either module", self._where)
        parameters = one_lane(self)
        x = torch.zeros(1, 2, *self.example_shape)
        try:
            with torch.no_grad():
                [z] = self.encode(parameters, x)
                if z.dim() == x.dim() and z.shape[:3] == (1, 2, self.dim):
                    self._latent_shape = tuple(z.shape[2:])
                    out = self.decode(parameters, [z])
                    if out.shape == x.shape:
                        return
                    found = f"decoder gives {tuple(out.shape[1:])} for {tuple(z.shape[1:])}"
                    raise InputError(f"{found}, allowed: {tuple(x.shape[1:])}", self._where)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"fails on a batch {tuple(x.shape[1:])}: {told(error)}", self._where
            ) from error
        raise InputError(
            f"encoder gives {tuple(z.shape[1:])} for {tuple(x.shape[1:])}, allowed: "
            f"(2, {self.dim}, ...) with as many axes",
            self._where,
        )


def _of_side(side: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What belongs to one of the two modules, under the module's own names."""
    prefix = f"{side}."
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}
