"""The codebook as a torch module, for a model and a training loop of your own.

    vq = VectorQuantizer(size=512, dim=64, update={"kind": "ema"}, respawn={"period": 3200})
    z_q, indices, loss = vq(z)

It is the quantizer of a stack of one, and gives what a trial of the same config would.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainables import noise
from trainables.codebooks.exported import trained_state
from trainables.codebooks.layout import MASKED, Layout
from trainables.codebooks.quantizer import Quantized, Quantizer
from trainables.codebooks.sync import ALONE, Sync, default_sync
from trainables.codebooks.technique import Clock, State
from trainables.config_block import Block, fixed
from trainables.config_codebook import CodebookConfig
from trainables.config_error import describe
from trainables.errors import InputError


class Output(NamedTuple):
    """What a VectorQuantizer gives.

    Attributes:
        quantized: in the shape and dtype of the latents.
        indices: int64 [B, positions], with one more axis of S streams where there are several
            (groups, residual levels); -1 where masked.
        loss: sum of the codebook's penalties, a scalar; 0 in evaluation.
    """

    quantized: Tensor
    indices: Tensor
    loss: Tensor


class VectorQuantizer(nn.Module):
    """A quantizer with any of the techniques, channel-last or channel-first, in 1 to 3 dimensions.

    Each forward pass in training mode is a step. What it changes in the codebook (EMA, respawn,
    growth) is done when the next one begins, or when the state is read: after your optimiser's
    step, as in a trial. The arithmetic is float32 whatever the latents and autocast are.

    What an optimiser trains (codes of a loss-based update, projections, SimVQ's map) are
    parameters, the rest are buffers. `parameter_groups` gives codes the learning rate that
    update.lr_ratio asks for; update.lr_final, which a trial follows, is left to your scheduler.

    Where torch.distributed is set up, its processes share one codebook: the codes' statistics and
    samples are summed over all of them, and respawned codes are latents of the first. What belongs
    to a batch (batch norm, the entropy terms) stays that of each process. All must use the
    same seed, and call the module in training mode, `seed` and `flush` together. Whatever only
    reads (evaluation, `state_dict`, `codebook`, copies) may be done by one of them, and leaves
    out what the last step has left to do, unless all of them call `flush` before.

    Args:
        channel_first: latents are [B, d, T], [B, d, H, W] or [B, d, D, H, W], not [B, ..., d].
        samples: training examples that shares such as growth.at refer to; a step draws B of them.
        seed: of the first codes and of all that is drawn later.
        codebook: the fields of CodebookConfig, blocks as plain mappings.

    Raises:
        InputError: settings that are unknown, out of range or impossible together.
    """

    samples_drawn: Tensor
    steps_done: Tensor

    def __init__(
        self, *, channel_first: bool = False, samples: int = 24_000, seed: int = 0, **codebook: Any
    ) -> None:
        """Check the settings, and draw the first codes."""
        super().__init__()
        self.config = _checked(CodebookConfig, codebook)
        own = {"channel_first": channel_first, "samples": samples, "seed": seed}
        self.settings = _checked(_Settings, own)
        device = torch.get_default_device()
        self._quantizer = self._build(device)
        self._layout = Layout(self.config.dim, channel_first, self._quantizer.streams)
        self._pending: _Pending | None = None
        self._samples, self._steps = 0, 0  # the two buffers, as the host knows them
        self.register_buffer("samples_drawn", torch.zeros(1, dtype=torch.int64, device=device))
        self.register_buffer("steps_done", torch.zeros(1, dtype=torch.int64, device=device))
        self.state = nn.Module()
        self._trained = [*self._quantizer.trained, *self._quantizer.trained_codes]
        everything = self._quantizer.all_state()
        self._names = {name: name.replace(".", "_") for name in everything}  # dots are refused
        for name, value in everything.items():
            if name in self._trained:
                self.state.register_parameter(self._names[name], nn.Parameter(value.clone()))
            else:
                self.state.register_buffer(self._names[name], value)
        self._give()
        self.register_state_dict_pre_hook(_before_state_dict)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_after_load)  # type: ignore[no-untyped-call]

    @classmethod
    def from_config(
        cls,
        config: CodebookConfig,
        *,
        channel_first: bool = False,
        samples: int = 24_000,
        seed: int = 0,
    ) -> VectorQuantizer:
        """The module of a config's codebook, such as that of an exported trial."""
        return cls(channel_first=channel_first, samples=samples, seed=seed, **dict(config))

    @property
    def codebook(self) -> Tensor:
        """The codes [K, d]; of several streams [S, K, d of one]."""
        self._read()
        codes = torch.cat([book.state["codebook"].detach() for book in self._quantizer.codebooks])
        return codes[0] if len(codes) == 1 else codes

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Groups for a torch optimiser: codes learn at update.lr_ratio times the rate `lr`."""
        mine = {name: getattr(self.state, self._names[name]) for name in self._trained}
        codes = [mine.pop(name) for name in self._quantizer.trained_codes]
        ratio = getattr(self.config.update, "lr_ratio", 1.0)
        groups = [
            {"params": list(mine.values()), "lr": lr},
            {"params": codes, "lr": lr * ratio},
        ]
        return [group for group in groups if group["params"]]

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Output:
        """Quantize latents [B, ..., d], or [B, d, ...] channel-first.

        Args:
            z: latents of any floating dtype.
            mask: bool [B, positions], False for padding, which counts nowhere, whatever it holds:
                not in statistics, penalties, respawn or gradients.

        Raises:
            InputError: latents or a mask of another shape.
        """
        with self._float32():
            latents, places = self._layout.enter(z)
            kept = None
            if mask is not None:
                kept = self._layout.enter_mask(mask, places)
                latents = latents.masked_fill(~kept.unsqueeze(-1), 0)
            if self.training:
                quantized = self._step(latents, kept, places[0])
                z_q, codes, loss = quantized.z_q, quantized.codes, quantized.loss[0]
                if kept is not None:
                    z_q = z_q.where(kept.unsqueeze(-1), z_q.detach())
            else:
                self._read()
                codes = self._quantizer.look_up(latents)
                z_q, loss = self._quantizer.embed(codes), latents.new_zeros(())
        indices = self._layout.leave_codes(codes, places, kept)
        return Output(self._layout.leave(z_q, places).to(z.dtype), indices, loss)

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Indices of latents, by the codebook as it is.

        Raises:
            InputError: latents of another shape.
        """
        self._read()
        with self._float32():
            latents, places = self._layout.enter(z)
            return self._layout.leave_codes(self._quantizer.look_up(latents), places, None)

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Quantized latents in the module's layout, of indices as `forward` gives them.

        Where an index is -1, as of padding, they are 0.

        Raises:
            InputError: indices of another shape.
        """
        self._read()
        codes, places = self._layout.enter_codes(indices)
        with self._float32():
            z_q = self._quantizer.embed(codes.clamp_min(0))
        padding = (codes == MASKED).any(1).unsqueeze(-1)
        return self._layout.leave(z_q.masked_fill(padding, 0), places)

    @torch.no_grad()
    def seed(self, latents: Tensor) -> None:
        """Seed the codes by k-means, from at most kmeans.latents of the latents given.

        Args:
            latents: [M, d], or in the module's layout.

        Raises:
            InputError: without `kmeans` among the settings, or fewer latents than codes.
        """
        kmeans, growth = self.config.kmeans, self.config.growth
        if kmeans is None:
            raise InputError("found null, allowed for seeding: kmeans={}", "kmeans")
        self.flush()
        with torch.inference_mode(False), self._float32():
            pool, _ = self._layout.enter(latents)
            count, least = pool.shape[1], growth.start if growth else self.config.size
            if count < least:
                raise InputError(
                    f"found {count}, allowed at least the {least} codes to seed", "latents"
                )
            if count > kmeans.latents:
                chance = noise.uniform(noise.fold(self._quantizer.seeds, 1111), (count,))
                pool = pool[:, chance[0].argsort()[: kmeans.latents]]
            self._agree()
            self._quantizer.seed(pool)
        self._take(self._quantizer.all_state())

    @torch.no_grad()
    def load_exported(self, weights: Mapping[str, Tensor], level: str = "") -> None:
        """Take over the codebook of an exported trial of this config, grown as at its end.

        Statistics of its training (EMA sums and counts, ages of codes) begin anew at these codes.

        Args:
            weights: the tensors of the export's safetensors file.
            level: `top` or `bottom` in a hierarchy, else empty.

        Raises:
            InputError: a tensor that is missing, or of another shape.
        """
        self.flush()
        for name, value in trained_state(self._quantizer.all_state(), weights, level).items():
            getattr(self.state, self._names[name]).copy_(value)
        for book in self._quantizer.codebooks:
            book.set_all()
        self._take(self._quantizer.all_state())
        self._samples = self.settings.samples
        self.samples_drawn = torch.full_like(self.samples_drawn, self._samples)

    @torch.no_grad()
    def flush(self) -> None:
        """Do what the last step has left to do to the codebook; in all processes together."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        samples = self._samples + int(pending.count)
        # Even where a reader is in inference mode: training will use these tensors again.
        with torch.inference_mode(False), self._float32():
            self._quantizer.after_step(pending.quantized, [self._samples], [samples])
        self._samples, self._steps = samples, self._steps + 1
        clock = pending.quantized.clock
        self.samples_drawn, self.steps_done = clock.samples, clock.step
        self._take(self._quantizer.all_state())

    def extra_repr(self) -> str:
        """The settings that are not the defaults."""
        told = {
            name: value
            for block in (self.config, self.settings)
            for name, value in block
            if value != type(block).model_fields[name].default
        }
        return ", ".join(f"{name}={value!r}" for name, value in told.items())

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles hold the state, and make a quantizer for it anew."""
        self._read()
        kept = self.__dict__ | {"_pending": None}
        del kept["_quantizer"]
        return kept

    def __setstate__(self, state: dict[str, Any]) -> None:
        """The other end of `__getstate__`."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._quantizer = self._build(self.steps_done.device)
        self._give()

    def _step(self, latents: Tensor, mask: Tensor | None, count: int) -> Quantized:
        self.flush()
        drawn: int | Tensor = count
        sync = self._agree()
        if sync is not ALONE:
            # Read when the step is completed, so that nothing waits for the device now.
            drawn = sync.total(torch.tensor([count], device=latents.device))
        clock = Clock(
            self.samples_drawn,
            self.samples_drawn + drawn,
            self.steps_done + 1,
            self._quantizer.seeds,
        )
        most = self._quantizer.most([self._steps + 1])
        quantized = self._quantizer.quantize(latents, clock, mask, most)
        self._take(self._quantizer.state)  # running statistics of a normalization
        self._pending = _Pending(quantized.detached(), drawn, sync is not ALONE)
        return quantized

    def _read(self) -> None:
        """Complete the last step, unless other processes are needed for it."""
        if self._pending is not None and not self._pending.shared:
            self.flush()

    def _agree(self) -> Sync:
        sync = default_sync()
        for book in self._quantizer.codebooks:
            book.sync = sync
        return sync

    def _build(self, device: torch.device) -> Quantizer:
        seeds = torch.tensor([self.settings.seed], device=device)
        return Quantizer([self.config], [self.settings.samples], seeds, device, torch.float32)

    def _give(self) -> None:
        """Make the module's tensors the quantizer's state."""
        mine = {name: getattr(self.state, own) for name, own in self._names.items()}
        self._quantizer.set_state(mine)
        self._quantizer.adopt({name: mine[name] for name in self._trained})

    def _take(self, new: State) -> None:
        """Make new tensors of the quantizer the module's buffers; parameters change in place."""
        for name, value in new.items():
            if name not in self._trained:
                setattr(self.state, self._names[name], value)

    def _float32(self) -> torch.autocast:
        return torch.autocast(self.steps_done.device.type, enabled=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VectorQuantizer:
        """Move to a device; the codebook stays float32 whatever the model is cast to."""
        self._read()

        def moved(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return fn(value)
            return value.to(fn(value.detach().new_empty(0)).device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        device = self.steps_done.device
        if device != self._quantizer.seeds.device:
            self._quantizer, self._pending = self._build(device), None
        self._give()
        return self


class _Settings(Block):
    """What a VectorQuantizer is told beside its codebook."""

    channel_first: bool = fixed(False, "whether channels come before the positions")
    samples: int = fixed(24_000, "training examples to draw", ge=1, le=10**12)
    seed: int = fixed(0, "seed of initialisation and noise", ge=0, lt=2**31)


@dataclass(frozen=True)
class _Pending:
    """A step that is not completed yet.

    Attributes:
        quantized: its record.
        count: examples drawn in it, by all processes.
        shared: whether other processes have a part in it.
    """

    quantized: Quantized
    count: int | Tensor
    shared: bool


_Checked = TypeVar("_Checked", bound=Block)


def _checked(kind: type[_Checked], values: Mapping[str, Any]) -> _Checked:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, kind), "VectorQuantizer") from None


def _before_state_dict(module: nn.Module, *_: Any) -> None:
    assert isinstance(module, VectorQuantizer)
    module._read()


def _after_load(module: nn.Module, _: Any) -> None:
    """Go on from what was loaded; the last step before it does not matter any more."""
    assert isinstance(module, VectorQuantizer)
    module._pending = None
    module._samples, module._steps = int(module.samples_drawn), int(module.steps_done)
    module._give()
