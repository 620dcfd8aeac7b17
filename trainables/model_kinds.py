"""Which model a config asks for."""

from __future__ import annotations

from trainables.config_model import FactoryModel, HierarchicalModel, ModelConfig
from trainables.convolutions import ConvolutionModel
from trainables.hierarchy import HierarchicalConvolutions
from trainables.model import Model
from trainables.module_model import ModuleModel


def build_model(config: ModelConfig, example_shape: tuple[int, ...], dim: int) -> Model:
    """The model for examples (C, T) or (C, H, W) and codes of dimension `dim`.

    Raises:
        InputError: a factory that cannot be found, fails, or gives modules of the wrong shapes.
    """
    if isinstance(config, FactoryModel):
        return ModuleModel(config, example_shape, dim)
    if isinstance(config, HierarchicalModel):
        return HierarchicalConvolutions(config, example_shape, dim)
    return ConvolutionModel(config, example_shape, dim)
