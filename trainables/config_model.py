"""TrialConfig.model: encoder and decoder."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue

from trainables.config_block import Block, fixed, integer, kind_or


class Convolutions(Block):
    """What the convolutional models share; 1-D or 2-D as the data is.

    Encoder: a convolution to `width` channels, one strided convolution for each entry of
    `strides`, `depth` residual blocks, a 1 x 1 projection to d. The decoder mirrors it.
    """

    width: int = fixed(128, "channels inside encoder and decoder", ge=1, le=8192)
    depth: int = fixed(2, "residual blocks in each of encoder and decoder", ge=0, le=64)
    kernel: Annotated[Literal[1, 3, 5, 7, 9], BeforeValidator(integer)] = fixed(
        3, "kernel size of the first and residual convolutions"
    )
    strides: tuple[Annotated[int, Field(ge=1, le=16)], ...] = fixed(
        (), "down-sampling of each stage; empty keeps the resolution", strict=False
    )


class ConvModel(Convolutions):
    """One level of latents."""

    kind: Literal["conv"] = "conv"


class HierarchicalModel(Convolutions):
    """Two levels of latents, a coarse top and a fine bottom (VQ-VAE-2, Razavi et al. 2019).

    The bottom's encoder is that of `conv`, with `strides`; the top's goes on from it with
    `top_strides`. The bottom is quantized given the top, and the decoder sees both. Each level has
    a codebook of its own, of the same size and techniques.
    """

    kind: Literal["hierarchical"] = "hierarchical"
    top_strides: tuple[Annotated[int, Field(ge=1, le=16)], ...] = fixed(
        (2,), "down-sampling from the bottom to the top", strict=False, min_length=1
    )


class FactoryModel(Block):
    """A user's own encoder and decoder.

    The function is called with example_shape=(C, ...), dim=d and `arguments`, and returns
    (encoder, decoder): modules mapping [B, C, ...] to [B, d, ...] and back.
    """

    kind: Literal["factory"] = "factory"
    factory: str = fixed(..., "package.module:function", pattern=r"^[\w.]+:\w+$")
    arguments: dict[str, JsonValue] = fixed({}, "keyword arguments of the function")


ModelConfig = Annotated[
    ConvModel | HierarchicalModel | FactoryModel, Field(discriminator="kind"), kind_or("conv")
]
