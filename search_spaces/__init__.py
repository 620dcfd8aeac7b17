"""The search spaces that come with vqtune: YAML files only, read by `vqtune.spaces`."""
