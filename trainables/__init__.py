"""One trial: config, data, model, codebooks, trainer and metrics; one file of it knows Ray."""

__version__ = "0.1.0"
