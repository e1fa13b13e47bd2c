"""Training: samples and a base model -> an adapter as GGUF, with a manifest of what it was made from.

The loop needs torch, transformers and peft (`recgpt[train]`); serving what it makes needs none of them.
"""

from recgpt.alignment.training.config import Config
from recgpt.alignment.training.plan import Plan, plan
from recgpt.alignment.training.run import Trained, digest_of, manifest_of, train

__all__ = ["Config", "Plan", "Trained", "digest_of", "manifest_of", "plan", "train"]
