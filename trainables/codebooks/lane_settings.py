"""What may differ between the lanes of a stack, as tensors over lanes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

# One lane's settings as numbers: those of each technique or transform by its name.
HostSettings = dict[str, Mapping[str, float]]


class LaneSettings(Mapping[str, Mapping[str, Tensor]]):
    """Settings [L] by technique and name.

    Equal settings are one tensor, so that techniques know what they can share. As lanes change
    hands, each pattern of what is equal to what has tensors that stay the same ones: a step that
    was captured reads these.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        """Begin with none; numbers that are not whole become `dtype`."""
        self._device, self._dtype = device, dtype
        self._tensors: dict[str, dict[str, Tensor]] = {}
        self._of_layout: dict[tuple[object, ...], dict[str, dict[str, Tensor]]] = {}
        self.layout: tuple[object, ...] = ()

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        """The settings of one technique."""
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        """The techniques' names."""
        return iter(self._tensors)

    def __len__(self) -> int:
        """How many techniques there are."""
        return len(self._tensors)

    def take(self, lanes: Sequence[HostSettings], times: int = 1) -> None:
        """Set all from the lanes' numbers, each lane `times` times over (its groups)."""
        known: dict[str, Tensor] = {}
        new: dict[str, dict[str, Tensor]] = {}
        layout: list[object] = []
        for name, settings in lanes[0].items():
            new[name] = {}
            for key in settings:
                values = [lane[name][key] for lane in lanes for _ in range(times)]
                shown = repr(values)
                if shown not in known:
                    known[shown] = self._tensor(values)
                new[name][key] = known[shown]
                layout.append((name, key, list(known).index(shown), known[shown].dtype))
        self.layout = tuple(layout)
        self._tensors = self._of_layout.setdefault(self.layout, new)
        for name, tensors in new.items():
            for key, value in tensors.items():
                self._tensors[name][key].copy_(value)

    def _tensor(self, values: list[float]) -> Tensor:
        whole = all(isinstance(value, int) for value in values)
        dtype = torch.int64 if whole else self._dtype
        return torch.tensor(values, dtype=dtype, device=self._device)
