"""The house rules that a machine can hold: layers aside (import-linter has those), what the README and the tree say."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recgpt
from recgpt import _core

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "recgpt"
STAGES = ["logs", "behaviors", "history", "interests", "tags", "retrieval", "explanations", "serving"]


def tracked() -> list[str]:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listing.stdout.splitlines()


def test_every_stage_says_its_place_and_the_readme_says_the_same() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for place, stage in enumerate(STAGES, start=1):
        line = (importlib.import_module(f"recgpt.{stage}").__doc__ or "").splitlines()[0]
        assert re.fullmatch(rf"Stage {place} of 8: .+ -> .+\.", line), f"{stage}: {line}"
        flow = line.removeprefix(f"Stage {place} of 8: ").removesuffix(".")
        assert re.search(rf"\| {place} \| `{stage}` \| {re.escape(flow)} \|", readme), f"README lacks: {stage} | {flow}"


def first_line(path: str) -> str:
    """What a file says of itself: its first docstring or comment line."""
    text = (ROOT / path).read_text(encoding="utf-8")
    patterns = {
        ".py": r'\A(?:#!.*\n)?"""(.+?)(?:"""|\n)',
        ".rs": r"\A//! (.+)",
        ".sh": r"\A#!.*\n# (.+)",
        ".toml": r"\A# (.+)",
        ".md": r"\A# (.+)",
    }
    match = re.match(patterns[Path(path).suffix], text)
    assert match, f"{path} does not begin with a line that says what it is"
    return match[1].rstrip(".")


def tree() -> str:
    """The README's tree: every source, test and page of documentation with its own first line."""
    lines: list[str] = []
    folder = ""
    for path in sorted(tracked(), key=lambda path: (str(Path(path).parent), path)):
        if not path.startswith(("python/recgpt/", "rust/src/", "benches/", "runs/", "tests/", "docs/")):
            continue
        # Prompts and their rules are data, and have headers of their own.
        if "/prompts/" in path or Path(path).suffix not in {".py", ".rs", ".sh", ".toml", ".md"}:
            continue
        if (parent := f"{Path(path).parent}/") != folder:
            folder = parent
            lines.append(parent)
        lines.append(f"  {Path(path).name:<20} {first_line(path)}")
    return "\n".join(lines)


def test_the_readme_tree_is_the_tree() -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1].strip("\n")
    assert shown == tree(), f"paste this into the README:\n{tree()}"


def test_only_the_boundary_mentions_pyo3() -> None:
    source = ROOT / "rust/src"
    mentions = {
        str(path.relative_to(source)) for path in source.rglob("*.rs") if "pyo3::" in path.read_text(encoding="utf-8")
    }
    assert mentions == {"py.rs", "py/history.rs", "py/index.rs"}


def test_only_owners_of_a_kernel_import_the_compiled_module() -> None:
    owners = {
        "behaviors.py",
        "history/catalogue.py",
        "history/compression.py",
        "history/seams.py",
        "index/arrays.py",
        "llm/tokenizer.py",
    }
    importing = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if re.search(
            r"^\s*(from recgpt import .*\b_core\b|from recgpt\._core|import recgpt\._core)", path.read_text(), re.M
        )
    }
    assert importing == owners
    assert not [
        path for path in PACKAGE.rglob("*.py") if "_reference" in path.read_text() and path.name != "_reference.py"
    ]


def test_the_extension_is_a_release_build() -> None:
    assert _core.build_profile == "release", "build with `make setup`: a debug build is an order of magnitude slower"


def test_importing_recgpt_brings_no_heavy_library() -> None:
    code = "import recgpt, sys; print([m for m in ('torch', 'llama_cpp', 'gguf', 'pyarrow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", recgpt.__all__)
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(recgpt, name) is not None


def test_prompts_are_a_link_at_the_root() -> None:
    assert (ROOT / "prompts").is_symlink()
    assert (ROOT / "prompts").resolve() == PACKAGE / "prompts"


def test_no_pickle_and_no_unsafe_loading() -> None:
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bpickle\b|allow_pickle=True|torch\.load|trust_remote_code|yaml\.load\b", text), path


def test_files_stay_small() -> None:
    long = {
        path: lines
        for path in tracked()
        if path.endswith((".py", ".rs"))
        and not path.startswith("tests/")
        and (lines := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long, f"past 400 lines: {long}; split, or say why in the docstring"
