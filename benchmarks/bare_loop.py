"""The default trial as one writes it by hand in PyTorch: same arithmetic, no lanes, no config.

On a GPU encoder and decoder run under bf16 autocast, as vqtune's do.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """x + conv1(relu(conv_k(relu(x))))."""

    def __init__(self, width: int) -> None:
        """Two convolutions."""
        super().__init__()
        self.a = nn.Conv1d(width, width, 3, padding=1)
        self.b = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] to the same."""
        return x + self.b(F.relu(self.a(F.relu(x))))


class BareTrial:
    """EMA VQ-VAE on clips [F, C] on a CPU or GPU, one step at a time."""

    def __init__(self, values: Tensor, width: int, depth: int, size: int, dim: int) -> None:
        """Random weights, uniform codes."""
        channels = values.shape[1]
        device = values.device
        self.values, self.frames = values, torch.arange(32, device=device)
        self.encoder = nn.Sequential(
            nn.Conv1d(channels, width, 3, padding=1),
            *[Residual(width) for _ in range(depth)],
            nn.ReLU(),
            nn.Conv1d(width, dim, 1),
        ).to(device)
        self.decoder = nn.Sequential(
            nn.Conv1d(dim, width, 3, padding=1),
            *[Residual(width) for _ in range(depth)],
            nn.ReLU(),
            nn.Conv1d(width, channels, 3, padding=1),
        ).to(device)
        self.codebook = (2 * torch.rand(size, dim, device=device) - 1) / size
        self.count = torch.ones(size, device=device)
        self.total = self.codebook.clone()
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=1e-3)

    def step(self, first: Tensor) -> None:
        """One step on the clips that begin at `first` [B]."""
        x = self.values[first.unsqueeze(-1) + self.frames].mT.contiguous()
        autocast = torch.autocast(x.device.type, torch.bfloat16, enabled=x.is_cuda)
        with autocast:
            z = self.encoder(x)
        z = z.float()
        z_e = z.transpose(1, 2).reshape(-1, z.shape[1])
        with torch.no_grad():
            norms = self.codebook.square().sum(-1) / 2
            codes = torch.addmm(norms, z_e, self.codebook.t(), alpha=-1).min(-1).indices
            chosen = self.codebook[codes]
        commitment = F.mse_loss(z_e, chosen)
        z_q = z_e + (chosen - z_e).detach()
        with autocast:
            x_hat = self.decoder(z_q.view(x.shape[0], -1, z.shape[1]).transpose(1, 2))
        loss = F.mse_loss(x_hat.float(), x) + 0.25 * commitment
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        with torch.no_grad():
            ones = torch.ones_like(codes, dtype=z_e.dtype)
            counts = torch.zeros_like(self.count).index_add_(0, codes, ones)
            sums = torch.zeros_like(self.total).index_add_(0, codes, z_e)
            self.count.lerp_(counts, 0.01)
            self.total.lerp_(sums, 0.01)
            self.codebook = self.total / self.count.unsqueeze(-1)
