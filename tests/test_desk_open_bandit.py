"""IPS and SNIPS on the Open Bandit sample that the package `obp` carries, against the values of its own estimators.

The files are read from `RECGPT_OBP` (a folder with `obp/dataset/obd`, such as an unpacked wheel), from an installed
`obp`, or from its wheel, fetched without what it requires. `obp` itself is never imported: it wants torch and more.
"""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from recgpt.evaluation import desk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
OBP = {
    # campaign: IPW and SNIPW of BernoulliTS from Random's log, of Random from BernoulliTS' log; clicks of both logs
    "all": ((0.00455288, 0.0047758330812309535), (0.0023596395168460037, 0.002333713893161806), (38, 42)),
    "men": ((0.00453356, 0.004604232164349611), (0.003008626327256482, 0.0031894231622774027), (46, 69)),
    "women": ((0.006813473999999999, 0.006810965194592502), (0.00743757754192316, 0.0023730461434477677), (46, 46)),
}
"""What obp 0.4.1 computes (`OffPolicyEvaluation` with `InverseProbabilityWeighting` and
`SelfNormalizedInverseProbabilityWeighting`, BernoulliTS with its published prior, 100,000 draws, seed 12345), of 10,000
rows a log. IPW of campaign `all` is the value of its quick start."""


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if named := os.environ.get("RECGPT_OBP"):
        return Path(named) / "obp"
    if found := importlib.util.find_spec("obp"):
        return Path(str(found.origin)).parent
    folder = tmp_path_factory.mktemp("obp")
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "obp==0.4.1"]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode:
        pytest.skip(f"no RECGPT_OBP, no obp, and its wheel could not be fetched: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder / "obp"


def prior(sample: Path, campaign: str) -> tuple[np.ndarray, np.ndarray]:
    """The published prior of BernoulliTS: lists of numbers under `campaign: alpha: beta:`."""
    text = (sample / "policy/conf/prior_bts.yaml").read_text(encoding="utf-8")
    part = re.split(r"^\w+:$", text, flags=re.M)[["all", "men", "women"].index(campaign) + 1]
    alpha, beta = part.split("beta:")
    return tuple(np.array(re.findall(r"- ([\d.]+)", one), dtype=float) for one in (alpha, beta))


def shares(sample: Path, campaign: str) -> np.ndarray:
    """(items, 3): how often BernoulliTS shows each item at each position, drawn as obp draws it."""
    alpha, beta = prior(sample, campaign)
    random, counts = np.random.RandomState(12345), np.zeros((len(alpha), 3))
    for _ in range(100):
        best = random.beta(alpha, beta, size=(1000, len(alpha))).argsort(axis=1)[:, ::-1][:, :3]
        for position in range(3):
            counts[:, position] += np.bincount(best[:, position], minlength=len(alpha))
    return counts / 100_000


def log(sample: Path, policy: str, campaign: str) -> pa.Table:
    """One arm: obp has no users, so that every row is a user of its own."""
    table = pa.csv.read_csv(sample / f"dataset/obd/{policy}/{campaign}/{campaign}.csv")
    item, position = table["item_id"].to_numpy(), table["position"].to_numpy()
    items = len(shares_of := shares(sample, campaign))
    other = shares_of[item, position - 1] if policy == "random" else np.full(len(item), 1 / items)
    return pa.table(
        {
            "user_id": [f"{policy} {row}" for row in range(len(item))],
            "item_id": item,
            "timestamp": pc.cast(table["timestamp"], pa.timestamp("us", "UTC")),
            "click": table["click"],
            "propensity": table["propensity_score"],
            "other_propensity": other,
        }
    )


@pytest.mark.parametrize("campaign", OBP)
def test_the_values_of_both_policies_are_those_of_obp(sample: Path, campaign: str) -> None:
    arms = [log(sample, policy, campaign) for policy in ("random", "bts")]
    found = desk.compare(*arms, names=("Random", "BernoulliTS"))
    assert found.exposures == (10_000, 10_000)
    *expected, clicks = OBP[campaign]
    for judged, values, own, other in zip(found.policies, expected, clicks, reversed(clicks), strict=True):
        assert (judged.ips.value, judged.snips.value) == pytest.approx(values, rel=1e-12)
        assert (judged.own.value, judged.other.value) == (own / 10_000, other / 10_000)
        assert judged.ips.low < judged.ips.value < judged.ips.high
        assert 1 < judged.effective < 10_000
    # What the other policy truly earned lies in the interval of SNIPS, from the log that shows everything alike.
    if campaign == "all":
        assert found.policies[0].snips.low < found.policies[0].other.value < found.policies[0].snips.high
