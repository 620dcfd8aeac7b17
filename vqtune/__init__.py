"""The search: spaces, searcher, scheduler, cluster, tracking, export, and the command."""

from trainables import __version__

__all__ = ["__version__"]
