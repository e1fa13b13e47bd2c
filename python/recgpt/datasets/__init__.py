"""Data sets: a folder of Parquet or CSV, Complete Journey from its package, and a small generated world."""

from recgpt.datasets.dataset import NAMES, Dataset, load
from recgpt.datasets.folder import read

__all__ = ["NAMES", "Dataset", "load", "read"]
