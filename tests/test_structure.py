"""The house rules that a machine can hold: layers aside (import-linter has those), what the README and the tree say."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import recgpt
from recgpt import _core, schema, serving

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
    docstring, comment = r'\A(?:#!.*\n)?"""(.+?)(?:"""|\n)', r"\A(?:#!.*\n)?# (.+)"
    patterns = {
        **{".py": docstring, ".pyi": docstring, ".rs": r"\A//! (.+)"},
        **dict.fromkeys((".sh", ".toml", ".md", ".txt", ""), comment),
        **{".css": r"\A/\* (.+?) \*/", ".j2": r"\A\{# (.+?) #\}", ".js": r"\A// (.+)"},
        ".html": r"\A<!doctype html>\n<!-- (.+?) -->",
    }
    match = re.match(patterns[Path(path).suffix], text)
    assert match, f"{path} does not begin with a line that says what it is"
    return match[1].rstrip(".")


UNSAID = {"README.md", "LICENSE", "Cargo.lock", ".gitignore", "python/recgpt/py.typed", "prompts"}
"""What everybody knows, and the link to the prompts."""
DATA = {
    "adapters": "What SmolLM2-135M has learned for each stage: LoRA adapters as GGUF, each with its manifest",
    "benches/instructions.json": "Instructions that the kernel took when the figure was noted, which a test compares",
    "python/recgpt/datasets/world/words": "What the generated world sells and what its reviewers say, in two languages",
    "python/recgpt/prompts": "Every prompt with its inputs and output type, and the interest pool",
    "python/recgpt/prompts/curriculum": "What each subtask of the curriculum asks",
    "python/recgpt/prompts/rules": "Every rule with the function that checks it, and the word lists of the checkers",
}
"""What cannot say it itself: a file without comments, and folders of files that are data, one line for all of them."""


def tree() -> str:
    """The README's tree: every file of the repository with its own first line, and each folder of data as one line."""
    lines: list[str] = []
    folder = ""
    for path in sorted(set(tracked()) - UNSAID, key=lambda path: (str(Path(path).parent), path)):
        parent = str(Path(path).parent)
        if parent != folder:
            folder = parent
            lines.append(f"{parent}/" + (f"  {DATA[parent]}" if parent in DATA else ""))
        if parent not in DATA:
            lines.append(f"  {Path(path).name:<20} {DATA.get(path) or first_line(path)}")
    return "\n".join(lines)


def test_the_readme_tree_is_the_tree() -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("## The tree")[1].split("```")[1].strip("\n")
    assert shown == tree(), f"paste this into the README:\n{tree()}"


def test_only_the_boundary_mentions_pyo3() -> None:
    source = ROOT / "rust/src"
    mentions = {
        str(path.relative_to(source)) for path in source.rglob("*.rs") if "pyo3::" in path.read_text(encoding="utf-8")
    }
    assert mentions == {"py.rs", "py/exposures.rs", "py/history.rs", "py/index.rs"}


def test_only_owners_of_a_kernel_import_the_compiled_module() -> None:
    owners = {
        "behaviors.py",
        "evaluation/metrics/exposures.py",
        "history/catalogue.py",
        "history/compression.py",
        "history/rows.py",
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
        path for path in PACKAGE.rglob("*.py") if "_reference" in path.read_text() and path.parent.name != "_reference"
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
        if path.endswith((".py", ".rs", ".js"))
        and not path.startswith("tests/")
        and (lines := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > 400
    }
    assert not long, f"past 400 lines: {long}; split, or say why in the docstring"


def test_the_page_on_the_paper_names_files_and_functions_that_are_there() -> None:
    page = (ROOT / "docs/design/paper.md").read_text(encoding="utf-8")
    bases = (ROOT, PACKAGE, ROOT / "rust/src/history", ROOT / "docs/design")
    named = set(re.findall(r"`([\w/.-]+\.(?:py|rs|md|toml|tsv))`", page))
    assert len(named) > 40
    assert not {name for name in named if not any((base / name).is_file() for base in bases)}
    functions = re.findall(r"`([\w/]+\.py)` \(`(\w+)`\)", page)
    assert len(functions) > 8
    assert not {
        (path, name)
        for path, name in functions
        if not re.search(rf"\b(def )?{name}\b", (PACKAGE / path).read_text(encoding="utf-8"))
    }


# DESIGN.md section 8 as calls: the positional arguments, the keywords, and where ours wants more, the keyword for it.
SURFACE: list[tuple[str, int, str]] = [
    ("datasets.load", 1, ""),
    ("datasets.read", 1, ""),
    ("behaviors.extract", 1, ""),
    ("llm.Tokenizer.from_gguf", 1, ""),
    ("llm.Tokenizer.bytes", 0, ""),
    ("history.brief", 1, "tokenizer"),
    ("history.compress", 2, "now tokenizer budget"),
    ("history.expand", 1, ""),
    ("interests.mine", 2, "engine pool mode now"),
    ("tags.predict", 3, "engine now categories mode items item_tags"),
    ("categories.fit", 1, ""),
    ("categories.TagToCate.__call__", 2, ""),
    ("retrieval.train", 3, "now config"),
    ("retrieval.ExactIndex", 2, ""),
    ("retrieval.USearchIndex", 2, ""),
    ("retrieval.ExactIndex.search", 4, "beta k fuse exclude caps"),
    ("retrieval.USearchIndex.search", 4, "beta k fuse exclude caps"),
    ("explanations.write", 2, "categories engine now"),
    ("pipeline.run", 1, ""),
    ("Recommender.open", 1, ""),
    ("Recommender.recommend", 2, "k beta exclude"),
    ("Recommender.why_not", 3, "k"),
    ("evaluation.evaluate", 5, "now"),
]


@pytest.mark.parametrize(("name", "positional", "keywords"), SURFACE, ids=[row[0] for row in SURFACE])
def test_the_public_surface_is_the_designs(name: str, positional: int, keywords: str) -> None:
    found: object = recgpt
    for part in name.split("."):
        found = getattr(found, part)
    inspect.signature(found).bind(*range(positional), **dict.fromkeys(keywords.split()))  # type: ignore[arg-type]


def test_the_tables_have_the_columns_of_the_design() -> None:
    tables = {
        "events": "user_id item_id behavior timestamp query position",
        "items": "item_id title category brand price attributes description",
        "users": "user_id attributes",
        "reviews": "user_id item_id timestamp text rating",
        "briefs": "item_id brief tokens",
        "item_tags": "item_id tag",
        "history": "user_id text tokens receipt",
        "interests": "user_id rank interest pool_id listed stage reason evidence source as_of",
        "tags": "user_id rank tag interest reason category source as_of",
        "explanations": "interest item_id text source valid_until",
    }
    for table, columns in tables.items():
        have = getattr(schema, table.upper()).names
        assert [name for name in have if name in columns.split()] == columns.split(), table
    shown = serving.RECOMMENDATIONS.names
    assert shown == ["user_id", "item_id", "score", "y_col", "y_sem", "tag", "interest", "explanation", "cold", "as_of"]
