"""The search: spaces, searcher, scheduler, cluster, tracking, export, and the command."""

__version__ = "0.1.0"
