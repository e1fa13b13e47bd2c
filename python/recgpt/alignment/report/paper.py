"""The paper's own figures, which stand beside ours: another model, another shop, people as judges."""

from __future__ import annotations

TABLE_2 = {"DeepSeek-R1": 0.7000, "Qwen3-Base": 0.5974, "Qwen3-SFT": 0.7728, "TBStars-SFT": 0.7439}
"""Pass rate of interests."""
TABLE_4 = {"DeepSeek-R1": 0.8000, "Qwen3-Base": 0.3370, "Qwen3-SFT": 0.8480, "TBStars-SFT": 0.8880}
"""Pass rate of tags."""
TABLE_5 = {"TBStars-SFT (w/o IL)": 0.3671, "TBStars-SFT (w/ IL)": 0.3776}
"""HR@30."""
TABLE_7 = {"DeepSeek-R1": 0.927, "Qwen3-Base": 0.300, "Qwen3-SFT": 0.958}
"""Pass rate of explanations."""
TABLE_9 = {
    "interests": {"base": (0.6777, 0.6742, 0.9777, 0.7968), "aligned": (0.7689, 0.7996, 0.8575, 0.8275)},
    "tags": {"base": (0.8741, 0.9310, 0.9196, 0.9253), "aligned": (0.9308, 0.9714, 0.9463, 0.9587)},
    "explanations": {"base": (0.5677, 0.8753, 0.5677, 0.6657), "aligned": (0.8976, 0.9067, 0.8976, 0.9016)},
}
"""Accuracy, precision, recall and F1 of the judge, before (Qwen3-Judge-Base) and after (Qwen3-Judge-SFT)."""
