"""The metrics that every report of a trial has: what a search can go by, and records hold.

A file of its own, so that a space can be read without pandas.
"""

from __future__ import annotations

# Further metrics depend on the layout of the codebook and on what is switched on.
REPORTED = (
    "recon_loss",
    "recon_loss_unquantized",
    "recon_loss_shuffled",
    "perplexity",
    "perplexity_plugin",
    "active_codes",
    "hit_codes",
    "usage",
    "codes",
    "codes_in_use",
    "bits_per_frame",
    "bits_per_frame_nominal",
    "seconds",
    "cpu_seconds",
    "gpu_seconds",
)
