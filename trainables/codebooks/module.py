"""The codebook as a torch module, for a model and a training loop of your own.

    vq = VectorQuantizer(size=512, dim=64, update={"kind": "ema"}, respawn={"period": 3200})
    z_q, indices, loss = vq(z)

It is the quantizer of a stack of one, and gives what a trial of the same config would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from trainables.codebooks.quantizer import Quantized, Quantizer
from trainables.codebooks.sync import default_sync
from trainables.codebooks.technique import Clock
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

    What a step changes in the codebook (EMA, respawn, growth) is done when the next one begins, or
    when the state is read: after your optimiser's step, as in a trial. What the optimiser trains
    (codes of a loss-based update, projections, SimVQ's map) are parameters, the rest are buffers.
    The arithmetic is float32 whatever the latents and autocast are. Where torch.distributed is set
    up, statistics are summed over all processes, which must use the same seed.

    Args:
        channel_first: latents are [B, d, T], [B, d, H, W] or [B, d, D, H, W], not [B, ..., d].
        samples: training examples that shares such as growth.at refer to; a step draws B of them.
        seed: of the first codes and of all that is drawn later.
        codebook: the fields of CodebookConfig, blocks as plain mappings.

    Raises:
        InputError: settings that are unknown, out of range or impossible together.
    """

    steps: int
    drawn: int

    def __init__(
        self, *, channel_first: bool = False, samples: int = 24_000, seed: int = 0, **codebook: Any
    ) -> None:
        """Check the settings, and draw the first codes."""
        super().__init__()
        try:
            self.config = CodebookConfig.model_validate(codebook)
        except ValidationError as error:
            raise InputError(describe(error, CodebookConfig), "VectorQuantizer") from None
        self.channel_first, self.samples, self.seed_number = channel_first, samples, seed
        self.steps, self.drawn = 0, 0
        self._pending: Quantized | None = None
        self._before = 0
        self._quantizer = self._build(torch.device("cpu"))
        self.state = nn.Module()
        trained = {**self._quantizer.trained, **self._quantizer.trained_codes}
        for name, value in self._quantizer.all_state().items():
            if name in trained:
                parameter = nn.Parameter(value.clone())
                self.state.register_parameter(_attribute(name), parameter)
            else:
                self.state.register_buffer(_attribute(name), value)
        self._names = {_attribute(name): name for name in self._quantizer.all_state()}
        self._give()
        self.register_state_dict_pre_hook(_flush)  # type: ignore[no-untyped-call]

    @property
    def codebook(self) -> Tensor:
        """The codes [K, d]; of several streams [S, K, d of one]."""
        self.flush()
        codes = [book.state["codebook"].detach() for book in self._quantizer.codebooks]
        stacked = torch.cat(codes)
        return stacked[0] if len(stacked) == 1 else stacked

    def forward(self, z: Tensor, mask: Tensor | None = None) -> Output:
        """Quantize latents [B, ..., d], or [B, d, ...] channel-first.

        Args:
            z: latents of any floating dtype.
            mask: bool [B, positions], False for padding, which counts nowhere: not in statistics,
                penalties or respawn.

        Raises:
            InputError: latents or a mask of another shape.
        """
        self.flush()
        with torch.autocast(z.device.type, enabled=False):
            latents, places = self._latents(z)
            kept = None if mask is None else self._mask(mask, places)
            if self.training:
                quantized = self._step(latents, kept, places[0])
                z_q, codes, loss = quantized.z_q, quantized.codes, quantized.loss[0]
            else:
                codes = self._quantizer.look_up(latents)
                z_q, loss = self._quantizer.embed(codes), latents.new_zeros(())
            return Output(
                self._shaped(z_q, places).to(z.dtype), _indices(codes, places, mask), loss
            )

    @torch.no_grad()
    def encode(self, z: Tensor) -> Tensor:
        """Indices of latents, by the codebook as it is."""
        self.flush()
        latents, places = self._latents(z)
        return _indices(self._quantizer.look_up(latents), places, None)

    @torch.no_grad()
    def decode(self, indices: Tensor) -> Tensor:
        """Quantized latents, in the module's layout, of indices as `forward` gives them."""
        self.flush()
        several = self._quantizer.streams > 1
        places = indices.shape[:-1] if several else indices.shape
        flat = indices.reshape(-1, self._quantizer.streams).t().unsqueeze(0)
        return self._shaped(self._quantizer.embed(flat), places)

    @torch.no_grad()
    def seed(self, latents: Tensor) -> None:
        """Seed the codes by k-means from latents [M, d], or in the module's layout.

        Raises:
            InputError: without `kmeans` among the settings.
        """
        if self.config.kmeans is None:
            raise InputError("found null, allowed for seeding: kmeans={}", "kmeans")
        self.flush()
        pool = latents.float().unsqueeze(0) if latents.dim() == 2 else self._latents(latents)[0]
        self._agree()
        self._quantizer.seed(pool)
        self._take()

    @torch.no_grad()
    def flush(self) -> None:
        """Do what the last step has left to do to the codebook."""
        if self._pending is not None:
            quantized, self._pending = self._pending, None
            self._quantizer.after_step(quantized, [self._before], [self.drawn])
            self._take()

    def get_extra_state(self) -> dict[str, int]:
        """Steps and samples so far, for state_dict."""
        return {"steps": self.steps, "drawn": self.drawn}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from the steps and samples of a state_dict."""
        self.steps, self.drawn, self._pending = state["steps"], state["drawn"], None
        self._give()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are of a module with nothing left to do."""
        self.flush()
        return self.__dict__.copy()

    def _step(self, latents: Tensor, mask: Tensor | None, count: int) -> Quantized:
        self._before, self.drawn, self.steps = self.drawn, self.drawn + count, self.steps + 1
        self._agree()
        numbers = (self._before, self.drawn, self.steps)
        times = torch.tensor(numbers).to(latents.device, non_blocking=True)
        before, after, step = times.unsqueeze(-1).unbind(0)
        clock = Clock(before, after, step, self._quantizer.seeds, (self.steps,))
        self._pending = self._quantizer.quantize(latents, clock, mask)
        return self._pending

    def _agree(self) -> None:
        sync = default_sync()
        for book in self._quantizer.codebooks:
            book.sync = sync

    def _build(self, device: torch.device) -> Quantizer:
        seeds = torch.tensor([self.seed_number], device=device)
        return Quantizer([self.config], [self.samples], seeds, device, torch.float32)

    def _give(self) -> None:
        """Make the module's tensors the quantizer's state."""
        mine = {full: getattr(self.state, name) for name, full in self._names.items()}
        self._quantizer.set_state(mine)

    def _take(self) -> None:
        """Make the quantizer's new tensors the module's buffers; parameters change in place."""
        new = self._quantizer.all_state()
        for name in dict(self.state.named_buffers()):
            setattr(self.state, name, new[self._names[name]])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> VectorQuantizer:
        """Move to a device; the codebook stays float32 whatever the model is cast to."""
        self.flush()

        def moved(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return fn(value)
            return value.to(fn(value.detach().new_empty(0)).device)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        device = next(iter(self.state.state_dict().values())).device
        if device != self._quantizer.seeds.device:
            self._quantizer = self._build(device)
        self._give()
        return self

    def _latents(self, z: Tensor) -> tuple[Tensor, torch.Size]:
        """Latents as float32 [1, N, d], and the axes [B, positions] that N runs over."""
        last = z.movedim(1, -1) if self.channel_first and z.dim() > 2 else z
        if not 2 <= z.dim() <= 5 or last.shape[-1] != self.config.dim:
            axes = f"[B, {self.config.dim}, ...]" if self.channel_first else "[B, ..., d]"
            raise InputError(
                f"found {list(z.shape)}, allowed: {axes} with d = {self.config.dim} and up to 3 "
                "positions",
                "latents",
            )
        return last.reshape(1, -1, self.config.dim).float(), last.shape[:-1]

    def _shaped(self, z_q: Tensor, places: torch.Size) -> Tensor:
        last = z_q.reshape(*places, self.config.dim)
        return last.movedim(-1, 1) if self.channel_first else last

    def _mask(self, mask: Tensor, places: torch.Size) -> Tensor:
        if mask.shape != places or mask.dtype != torch.bool:
            raise InputError(
                f"found {mask.dtype} {list(mask.shape)}, allowed: torch.bool {list(places)}", "mask"
            )
        return mask.reshape(1, -1)


def _indices(codes: Tensor, places: torch.Size, mask: Tensor | None) -> Tensor:
    """Codes [1, S, N] as [B, positions] or [B, positions, S]."""
    several = codes.shape[1] > 1
    indices = codes[0].t().reshape(*places, -1) if several else codes[0, 0].reshape(places)
    if mask is None:
        return indices
    return indices.masked_fill(~(mask.unsqueeze(-1) if several else mask), -1)


def _attribute(name: str) -> str:
    return name.replace(".", "_")  # a module's names have no dots


def _flush(module: nn.Module, *_: Any) -> None:
    assert isinstance(module, VectorQuantizer)
    module.flush()
