"""The menu: which technique a config block asks for, and the order in which techniques act."""

from __future__ import annotations

from trainables import config_codebook as config
from trainables.codebooks.commitment import Commitment
from trainables.codebooks.cosine import Cosine
from trainables.codebooks.ema import Ema
from trainables.codebooks.entropy import Entropy
from trainables.codebooks.fsq import Fsq
from trainables.codebooks.gradient import Gradient
from trainables.codebooks.growth import Growth
from trainables.codebooks.kmeans import KMeans
from trainables.codebooks.least_recent import LeastRecent
from trainables.codebooks.lfq import Lfq
from trainables.codebooks.low_dim import LowDim
from trainables.codebooks.reanchor import Reanchor
from trainables.codebooks.respawn import Respawn
from trainables.codebooks.rotation import Rotation
from trainables.codebooks.sample_entropy import SampleEntropy
from trainables.codebooks.simvq import SimVq
from trainables.codebooks.stochastic import Stochastic
from trainables.codebooks.technique import Technique
from trainables.config_block import Block

# In the order in which they act. A new technique is a line here.
TECHNIQUES: dict[type[Block], type[Technique]] = {
    config.LowDim: LowDim,
    config.Stochastic: Stochastic,
    config.Rotation: Rotation,
    config.Growth: Growth,
    config.KMeans: KMeans,
    config.GradientUpdate: Gradient,
    config.EmaUpdate: Ema,
    config.SimVqUpdate: SimVq,
    config.FsqUpdate: Fsq,
    config.LfqUpdate: Lfq,
    config.Cosine: Cosine,
    config.Commitment: Commitment,
    config.Entropy: Entropy,
    config.SampleEntropy: SampleEntropy,
    config.Respawn: Respawn,
    config.LeastRecent: LeastRecent,
    config.Reanchor: Reanchor,
}
