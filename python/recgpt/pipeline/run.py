"""Joins the stages: the only place that knows their order.

Every table is written as Parquet into the folder of its stage. The LLM's answers are kept in a ledger and the trained
towers under the hash of what they were trained on, so the same command continues where it was stopped.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recgpt import behaviors, categories, datasets, explanations, history, interests, logs, retrieval, schema, serving, tags
from recgpt.categories import TagToCate
from recgpt.datasets import Dataset
from recgpt.index import ExactIndex
from recgpt.llm import FakeEngine, LlamaCpp, Recorded, Tokenizer, default_model_path
from recgpt.llm.engine import Engine
from recgpt.pipeline import households as drawing
from recgpt.pipeline.config import Config, load
from recgpt.pipeline.fingerprint import fingerprint
from recgpt.pipeline.watch import Clock, Silent, Watch
