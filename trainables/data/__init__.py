"""The data of a trial: one file for each kind, and what they share."""

from trainables.data.dataset import Dataset, Split, load_dataset
from trainables.data.folder import folder_kind

__all__ = ["Dataset", "Split", "folder_kind", "load_dataset"]
