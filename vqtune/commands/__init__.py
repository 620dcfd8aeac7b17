"""The commands, one function each; `vqtune.cli` gathers them."""
