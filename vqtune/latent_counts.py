"""How many latents a training step has, as far as a config alone tells."""

from __future__ import annotations

import math

from trainables.config import TrialConfig
from trainables.config_data import AudioData, DigitsData, ImagesData, SyntheticData
from trainables.config_model import FactoryModel, HierarchicalModel

_DIGITS_SIZE = 8


def latents_a_step(config: TrialConfig) -> tuple[int, ...]:
    """Latents of each level, the coarsest first; none where only the data or a factory tell."""
    shape, model = _example_shape(config), config.model
    if not shape or isinstance(model, FactoryModel):
        return ()
    shape = _smaller(shape, model.strides)
    shapes = [shape]
    if isinstance(model, HierarchicalModel):
        shapes.insert(0, _smaller(shape, model.top_strides))
    return tuple(config.training.batch_size * math.prod(each) for each in shapes)


def _example_shape(config: TrialConfig) -> tuple[int, ...]:
    """Axes of an example after its channels."""
    data = config.data
    if isinstance(data, SyntheticData | AudioData):
        return (data.clip_frames,)
    if isinstance(data, ImagesData):
        return (data.size, data.size)
    if isinstance(data, DigitsData):
        return (_DIGITS_SIZE, _DIGITS_SIZE)
    return ()


def _smaller(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[int, ...]:
    for stride in strides:
        shape = tuple(math.ceil(size / stride) for size in shape)
    return shape
