"""The knobs of tri-tower training."""

from __future__ import annotations

from dataclasses import dataclass, fields

from recgpt.errors import InvalidConfigError

POOLINGS = ("mean", "attention", "query", "next")


@dataclass(frozen=True)
class Config:
    """How the towers are built and trained. Sizes and rates are ours; only `alpha` is given in the paper."""

    embedding_size: int = 64
    """Length d of the vectors of users, items and tags, and of the id embeddings."""
    feature_size: int = 16
    """Length of the embedding of each other item feature (category, brand, price, sales)."""
    word_size: int = 32
    """Length of a word embedding, of titles and tags alike."""
    hidden_size: int = 128
    """Width of the one hidden layer of each DNN. 0: no DNN and no user id; an item is the sum of its embeddings, a tag
    the mean of words of its own, a user the sum of what was pooled, and all embeddings have `embedding_size`."""
    pooling: str = "attention"
    """How a user's items become one vector a behavior: `mean` of the latest (the paper); `attention` over them, by item
    and by how late it came, beside the mean of the `profile_length` latest; `query`, the same with weights that also
    depend on the user's latest item of that behavior; `next`, as `query`, and a matrix leads from what was pooled, and
    another from the latest item, to what comes next (without a hidden layer only: a DNN has matrices of its own)."""
    sequence_length: int = 50
    """How many of the latest items of each behavior are pooled."""
    profile_length: int = 1000
    """How many of the latest items of each behavior are in the profile, the long mean that `attention` adds."""
    buckets: int = 16
    """Quantile buckets of log price."""
    sales_buckets: int = 32
    """Even buckets of each of the log sales."""
    full_softmax: int = 0
    """In a catalogue of at most so many items, all of them are candidates in every step; else negatives are drawn."""
    bf16: bool = False
    """Multiply users and the candidates of L_col in bfloat16, where that is faster."""
    min_count: int = 5
    """Items with fewer training events share one id embedding and are not drawn as uniform negatives."""
    alpha: float = 0.5
    """L = L_col + alpha L_tag + (1 - alpha) L_cate (section 2.3.2)."""
    joint: bool = True
    """L_tag and L_cate move the items too (the paper); else the tag tower alone learns from them, where the items are
    (and, with a hidden layer, the words that it shares with the titles)."""
    temperature: float = 0.07
    """Cosines are divided by this inside the three losses."""
    log_q: bool = True
    """Correct L_col and L_tag for how often sampling brings an item, so that popularity stays in both scores."""
    repeat_weight: float = 0.3
    """Weight of a positive that the user had acted on before; 1 learns buying again, 0 only new items."""
    averaging: float = 0.98
    """The weights measured and kept are a running mean; each step keeps so much of it. 0 takes the last weights."""
    half_life_days: float = 60.0
    """An example half as likely to be drawn for each such period before the cut; 0 draws all alike."""
    negatives: str = "items"
    """Negatives of L_tag: `items` (the paper's formula) or `tags` (the paper's text)."""
    positives_per_basket: int = 8
    """At most so many positives of one basket enter a step."""
    uniform_negatives: int = 2048
    """Items drawn alike for each step, beside the other users' positives."""
    rare_negatives: int = 512
    """Further ones among the items with fewer events than `min_count`, the unsold included."""
    pairs: int = 512
    """Tag-item pairs of a step."""
    id_dropout: float = 0.1
    """Share of user and item ids hidden in training, so that unknown ones get a trained stand-in."""
    dropout: float = 0.0
    """Share of the values hidden in training, of the items that a user is read from and of the user's own vector."""
    batch_size: int = 256
    """Baskets (one user at one time) a step."""
    steps: int = 100
    """At most so many steps an epoch."""
    epochs: int = 10
    """At most so many epochs."""
    patience: int = 2
    """Stop after so many epochs without a better validation recall."""
    learning_rate: float = 0.004
    """Step size of Adam, falling to a tenth over `epochs`."""
    validation_days: float = 14.0
    """Length of the held-out time before `now`, and of the periods at whose start an example's sales are counted."""
    refit_epochs: int = 2
    """Further epochs on everything before `now` after validation, starting at the best weights; 0 keeps those."""
    anew: str = ""
    """Instead of `refit_epochs`: poolings by comma, such as `next,query`. A tower of each learns everything before
    `now` from new weights, for as many epochs as were best, and they stand side by side in one vector, whose cosine is
    the mean of theirs. The latest events then count as much as all others; each tower costs a whole training."""
    top_k: int = 20
    """Validation recall is counted at this rank."""
    validation_users: int = 1000
    """Users measured after each epoch, drawn by seed."""
    device: str = "auto"
    """Where torch trains: `auto` is a GPU where there is one, else the processor."""
    threads: int | None = None
    """Threads of torch; None leaves its setting. On a processor, results repeat exactly with as many threads."""
    seed: int = 0
    """All randomness."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train.

        Raises:
            InvalidConfigError: naming the field, what it must be and what came.
        """
        sizes = "embedding_size feature_size word_size sequence_length profile_length buckets sales_buckets"
        rest = "min_count batch_size steps positives_per_basket uniform_negatives pairs epochs patience top_k"
        at_least_one = f"{sizes} {rest} validation_users".split()
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in at_least_one and value < 1:
                raise InvalidConfigError(f"retrieval `{field.name}` must be at least 1, but it is {value}")
        for name in ("temperature", "learning_rate", "validation_days"):
            if not getattr(self, name) > 0:
                raise InvalidConfigError(f"retrieval `{name}` must be above 0, but it is {getattr(self, name)}")
        for name in ("refit_epochs", "half_life_days", "hidden_size", "full_softmax", "rare_negatives"):
            if getattr(self, name) < 0:
                raise InvalidConfigError(f"retrieval `{name}` must be at least 0, but it is {getattr(self, name)}")
        for name in ("alpha", "repeat_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidConfigError(f"retrieval `{name}` must lie in [0, 1], but it is {getattr(self, name)}")
        for name in ("id_dropout", "averaging", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidConfigError(f"retrieval `{name}` must lie in [0, 1), but it is {getattr(self, name)}")
        for name, own in (("pooling", [self.pooling]), ("anew", self.kinds)):
            for kind in own:
                if kind not in POOLINGS or (kind == "next" and self.hidden_size):
                    raise InvalidConfigError(
                        f"retrieval `{name}` must be `mean`, `attention`, `query` or (where `hidden_size` is 0) `next`"
                        f", but it is {getattr(self, name)!r}"
                    )
        distinct = {self.pooling, *self.kinds}
        if "mean" in distinct and len(distinct) > 1:
            raise InvalidConfigError("retrieval `pooling` and `anew` must not mix `mean`, which reads no profile")
        if self.negatives not in ("items", "tags"):
            raise InvalidConfigError(f"retrieval `negatives` must be `items` or `tags`, but it is {self.negatives!r}")

    @property
    def kinds(self) -> list[str]:
        """Pooling of each tower of `anew`."""
        return [kind.strip() for kind in self.anew.split(",")] if self.anew else []
