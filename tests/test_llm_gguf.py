"""Tokenizers of damaged GGUF files: an error of ours or a tokenizer, never anything else, and soon."""

import random

import pytest

from recgpt.errors import ModelNotFoundError, TokenizerError
from recgpt.llm import Tokenizer


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A GGUF file with a vocabulary of 256 bytes and two merges, and one small tensor."""
    gguf = pytest.importorskip("gguf")
    import numpy as np
    from gguf.constants import TokenType

    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    # The printable stand-ins that byte-level BPE has for the 256 bytes.
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in own] + [chr(256 + place) for place in range(256 - len(own))]
    tokens = [*letters, "oa", "oat"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["o a", "oa t"])
    writer.add_chat_template("{{ messages[0].content }}")
    writer.add_tensor("output.weight", np.zeros((4, 8), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_the_whole_file_is_read(small) -> None:
    tokenizer = Tokenizer.from_gguf(small)
    assert tokenizer.count(["oat", "oa", "tea"]).tolist() == [1, 1, 3]
    assert tokenizer.chat_template == "{{ messages[0].content }}"


def test_missing_and_other_files_are_named(tmp_path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"expected at .*none\.gguf"):
        Tokenizer.from_gguf(tmp_path / "none.gguf")
    (tmp_path / "zip.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(ModelNotFoundError, match="does not begin with the bytes GGUF"):
        Tokenizer.from_gguf(tmp_path / "zip.gguf")


@pytest.mark.timeout(120)
def test_three_hundred_damaged_headers_are_refused_or_read(small, tmp_path) -> None:
    whole = small.read_bytes()
    draw = random.Random(4)
    refused = []
    path = tmp_path / "damaged.gguf"
    for turn in range(300):
        data = bytearray(whole)
        if turn % 3 == 0:
            del data[draw.randrange(4, len(data)) :]
        elif turn % 3 == 1:
            for _ in range(draw.randint(1, 8)):
                data[draw.randrange(4, 400)] = draw.randrange(256)
        else:
            # The lengths and counts are what a reader trusts.
            at = draw.randrange(4, 400)
            data[at : at + 8] = draw.choice((2**63, 2**40, 2**31 - 1, 0)).to_bytes(8, "little")
        path.write_bytes(data)
        try:
            Tokenizer.from_gguf(path)
        except TokenizerError as error:
            refused.append(str(error))
    assert len(refused) > 150
    assert all("damaged.gguf" in text for text in refused)
