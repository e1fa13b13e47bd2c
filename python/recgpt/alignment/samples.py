"""What one training sample is, whoever made it: the curriculum, a teacher, the model itself, or the last two weeks."""

from __future__ import annotations

import pyarrow as pa

from recgpt.schema import TIMESTAMP

SAMPLES = pa.schema(
    [
        pa.field("subtask", pa.large_string(), nullable=False),
        pa.field("level", pa.large_string(), nullable=False),
        pa.field("system", pa.large_string(), nullable=False),
        pa.field("prompt", pa.large_string(), nullable=False),
        pa.field("beginning", pa.large_string(), nullable=False),
        pa.field("answer", pa.large_string(), nullable=False),
        pa.field("others", pa.list_(pa.large_string()), nullable=False),
        pa.field("user_id", pa.large_string()),
        pa.field("at", TIMESTAMP),
        pa.field("origin", pa.large_string(), nullable=False),
        pa.field("prompt_digest", pa.large_string(), nullable=False),
    ]
)
"""One training sample; loss is on `answer` only.

`subtask` and `level` say what it teaches: one of the curriculum's, or a stage's own task (`interests`, `tags`,
`explanations`, `judge`) at the level `task`. `beginning` is the forced beginning of the answer (`llm.engine.Prompt`).
Where `others` names wrong answers to the same prompt, the answer is one that an engine would score
(`llm.engine.ScoreRequest`, with its leading space) and learns to come before them; else it is a text that ends where
the assistant's turn ends. Samples of one prompt that follow each other share its tokens. `user_id` and `at`: whose
behavior it shows, and until when."""

TASK = "task"
"""The level of samples that are a stage's own prompt."""
