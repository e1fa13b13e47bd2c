"""Prompt files: what a header says, what is missing, and what was shipped."""

from pathlib import Path

import pytest

from recgpt.errors import PromptError
from recgpt.llm import prompts

FOLDER = Path(prompts.__file__).parents[1] / "prompts"
GOOD = '+++\nversion = 1\ninputs = ["name"]\noutput = "text"\n+++\n# system\nBe kind.\n# user\nHello {{ name }}\n'


def write(folder: Path, text: str) -> Path:
    (folder / "hello.md").write_text(text, encoding="utf-8")
    return folder


def test_a_template_renders_its_sections(tmp_path: Path) -> None:
    prompt = prompts.load("hello", write(tmp_path, GOOD)).render(name="Ada")
    assert (prompt.system, prompt.user, prompt.answer) == ("Be kind.", "Hello Ada", "")


def test_a_template_cannot_reach_python(tmp_path: Path) -> None:
    hostile = GOOD.replace("{{ name }}", "{{ name.__class__.__mro__ }}")
    with pytest.raises(PromptError, match="cannot be rendered"):
        prompts.load("hello", write(tmp_path, hostile)).render(name="Ada")


def test_data_is_never_a_template(tmp_path: Path) -> None:
    prompt = prompts.load("hello", write(tmp_path, GOOD)).render(name="{{ 1 + 1 }}")
    assert prompt.user == "Hello {{ 1 + 1 }}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hello", "must begin with a TOML header"),
        (GOOD.replace("version = 1\n", ""), "must have exactly inputs, output, version, but it has inputs, output"),
        (GOOD.replace("version = 1", "version ="), "is not TOML"),
        (GOOD.replace("# user\n", ""), "must have the sections `# system` and `# user`"),
        (
            GOOD.replace(" {{ name }}", ""),
            r"the slots of hello\.md do not fit the header's inputs; missing: {{ name }}",
        ),
        (GOOD.replace("{{ name }}", "{{ name }}{{ nmae }}"), r"inputs; unknown: {{ nmae }}"),
        (GOOD.replace("{{ name }}", "{% if name %}you{% endif %}"), r"header's inputs; missing: {{ name }}"),
        (GOOD.replace("{{ name }}", "{{ name "), r"hello\.md, section `# user`, is not a Jinja2 template"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        prompts.load("hello", write(tmp_path, text))


def test_missing_and_unexpected_inputs_are_named(tmp_path: Path) -> None:
    template = prompts.load("hello", write(tmp_path, GOOD))
    with pytest.raises(PromptError, match="takes name; missing: name; unexpected: nme"):
        template.render(nme="Ada")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"hello\.md was expected"):
        prompts.load("hello", tmp_path)


def test_a_wording_of_ones_own_needs_every_slot_of_its_stage(tmp_path: Path) -> None:
    text = (FOLDER / "interests_rank.md").read_text(encoding="utf-8")
    without = text.replace('inputs = ["history", "attributes"]', 'inputs = ["attributes"]').replace("history", "past")
    (tmp_path / "interests_rank.md").write_text(
        without.replace("{% if past %}\n", "").replace('{{ past | fence("past") }}\n{% endif %}\n', ""),
        encoding="utf-8",
    )
    with pytest.raises(
        PromptError, match=r"interests_rank\.md do not fit what its stage hands in; missing: {{ history"
    ):
        prompts.load("interests_rank", tmp_path)


def test_every_prompt_of_the_package_is_known_with_its_inputs() -> None:
    assert {path.stem: set(prompts.load(path.stem).inputs) for path in FOLDER.glob("*.md")} == prompts.INPUTS


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.md")))
def test_every_prompt_of_the_package_loads(name: str) -> None:
    assert prompts.load(name).version >= 1
