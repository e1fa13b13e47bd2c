"""Stage 7: the rules for texts, one by one."""

from __future__ import annotations

import inspect
import tomllib
from importlib import import_module, resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt import phrases
from recgpt.brands import Brands
from recgpt.explanations import checkers

FACTS = "wool sock ; WOOL SOCKS 2 PK ; Kintra ; gift box"


def test_every_rule_names_a_checker_that_exists():
    text = (resources.files("recgpt") / "prompts" / "rules" / "explanations.toml").read_text(encoding="utf-8")
    rules = tomllib.loads(text)["rule"]
    assert len({rule["id"] for rule in rules}) == len(rules) >= 14
    named = set()
    for rule in rules:
        assert set(rule) == {"id", "source", "kind", "rule", "checker"}
        if rule["checker"] != "LLM only":
            module, name = rule["checker"].split(".")
            assert callable(
                getattr(
                    import_module("recgpt.phrases" if module == "phrases" else f"recgpt.explanations.{module}"), name
                )
            )
            named.add(name)
    own = {
        name
        for name, function in inspect.getmembers(checkers, callable)
        if getattr(function, "__module__", "") == checkers.__name__ and not name.startswith("_")
    }
    assert own <= named


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        (checkers.right_length("Wool sock for cold feet"), None),
        (checkers.right_length("Cold feet, goodbye"), "length"),
        (checkers.right_length("word " * 12), None),
        (checkers.right_length("word " * 13), "length"),
        (checkers.right_length("山野清晨一杯热茶"), None),
        (checkers.right_length("一杯热茶。"), "length"),
        (checkers.right_length("山野清晨的一杯热茶，很香"), "length"),
        (phrases.no_invented_claim("Wool sock for kitchen dancers", FACTS), None),
        (phrases.no_invented_claim("Silk sock for kitchen dancers", FACTS), "invented_claim"),
        (phrases.no_invented_claim("Waterproof sock for puddle jumpers", FACTS), "invented_claim"),
        (phrases.no_invented_claim("Bread with vitamins for the road", "white bread"), "invented_claim"),
        (phrases.no_invented_claim("防水背包走遍山河", "背包"), "invented_claim"),
        (checkers.no_invented_number("A sock for 3 winters", FACTS), "invented_number"),
        (checkers.no_invented_number("2 socks for one winter", FACTS), None),
        (checkers.no_foreign_brand("Vasmo sock for slow mornings", FACTS, Brands(["Vasmo", "Kintra"])), "brand"),
        (checkers.no_foreign_brand("Kintra sock for slow mornings", FACTS, Brands(["Vasmo", "Kintra"])), None),
        (checkers.no_empty_praise("A perfect choice for the season", FACTS), "empty_praise"),
        (checkers.no_empty_praise("Quality time by the window", "QUALITY STREET"), None),
        (checkers.no_empty_praise("居家必备好物", "毛袜"), "empty_praise"),
        (checkers.no_empty_praise("Socks that hum winter songs", FACTS), None),
        (checkers.no_hard_sell("Limited offer, buy now"), "hard_sell"),
        (checkers.no_hard_sell("100% effective against cold"), "hard_sell"),
        (checkers.no_hard_sell("Warm feet under the table"), None),
        (checkers.no_copy("Italian and French bread", "BREAD:ITALIAN/FRENCH"), "copy"),
        (checkers.no_copy("Italian bread for soup that waits", "BREAD:ITALIAN/FRENCH"), None),
        (checkers.no_personal_data("Ms. Zhang will love these socks"), "personal_data"),
        (checkers.no_personal_data("Call 030 1234567 for socks"), "personal_data"),
        (checkers.no_personal_data("mail ann@example.org about socks"), "personal_data"),
        (checkers.no_personal_data("For a reader 65 years old"), "personal_data"),
        (checkers.no_personal_data("Socks for the night train"), None),
        (checkers.clear("Bag bag good bag buy bag good"), "repetition"),
        (checkers.clear("For the sea and for the sea"), None),
        (checkers.clear("dry cat food dry cat food"), "repetition"),
        (checkers.complete("Socks for a walk in the"), "incomplete"),
        (checkers.complete("Socks for a walk,"), "incomplete"),
        (checkers.complete("Socks for a walk"), None),
        (checkers.relevant("Roam the mountains with this backpack", "travel backpack", "outdoor travel"), None),
        (checkers.relevant("Papers carried with ease", "travel backpack", "outdoor travel"), "irrelevant"),
        (checkers.relevant("Papers carried outdoor", "travel backpack", "outdoor travel"), None),
        (checkers.relevant("背包里装下整片山野", "旅行背包", None), None),
        (checkers.says_something("winter", "wool sock"), "no_substance"),
        (checkers.says_something("wool sock", "wool sock"), "no_substance"),
        (checkers.says_something("soup that waits", "italian bread"), None),
        (checkers.says_something("winter bagged cheese snack", "bagged cheese snack"), "repetition"),
        (checkers.says_something("a self-rising loaf", "white self rising flour"), "repetition"),
        (checkers.no_personal_data("Socks for a wife who studies"), "personal_data"),
        (checkers.in_voice("I love them in the morning"), "off_voice"),
        (checkers.in_voice("the item, interest home baking"), "off_voice"),
        (checkers.in_voice("the night train"), None),
        (checkers.of_the_season("Socks for a summer night", FACTS, "winter", "December"), "wrong_season"),
        (checkers.of_the_season("Socks for a July night", FACTS, "summer", "June"), "wrong_season"),
        (checkers.of_the_season("Socks for a December night", FACTS, "winter", "December"), None),
        (checkers.of_the_season("Spring roll for cold nights", "spring roll", "winter", "December"), None),
        (phrases.no_invented_claim("Sock that lowers cholesterol", FACTS), "invented_claim"),
        (phrases.no_invented_claim("A safe sock for little feet", FACTS), "invented_claim"),
        (phrases.no_invented_claim("Sock that keeps your feet warm", FACTS), "invented_claim"),
        (phrases.no_invented_claim("Keep warm with a sock", FACTS), "invented_claim"),
        (phrases.no_invented_claim("Low fat milk for tea", "milk"), "invented_claim"),
        (phrases.no_invented_claim("Lowfat milk for tea", "LOW-FAT MILK"), None),
        (phrases.no_invented_claim("Milk to keep tea and guests company when warm", "milk"), None),
        (phrases.no_invented_claim("A warm sock for a cold floor", FACTS), None),
        (checkers.of_the_season("Socks for the last night of winter", FACTS, "winter", "December"), "wrong_season"),
        (checkers.of_the_season("Socks for winter's end", FACTS, "winter", "December"), "wrong_season"),
        (checkers.of_the_season("Socks for the day after Christmas", FACTS, "winter", "December"), "wrong_season"),
        (checkers.of_the_season("Socks when winter is over", FACTS, "winter", "December"), "wrong_season"),
        (checkers.of_the_season("Socks for the end of the season", FACTS, "winter", "December"), "wrong_season"),
        (checkers.of_the_season("Socks for a winter's day", FACTS, "winter", "December"), None),
        (checkers.of_the_season("Socks under the Christmas tree", FACTS, "winter", "December"), None),
        (checkers.of_the_season("Socks under the Christmas tree", FACTS, "summer", "July"), "wrong_season"),
        (checkers.of_the_season("Socks for Christmas", "christmas sock", "summer", "July"), None),
        (checkers.no_echo("for cold feet by the window", "toes and cold feet by the window"), "echo"),
        (checkers.no_echo("for warm feet in bed", "toes and cold feet by the window"), None),
    ],
)
def test_checkers(verdict, expected):
    assert verdict == expected


@given(st.text(max_size=60), st.text(max_size=40))
def test_checkers_stand_any_text(text, other):
    checkers.right_length(text)
    phrases.no_invented_claim(text, other)
    checkers.no_empty_praise(text, other)
    checkers.no_copy(text, other)
    checkers.clear(text)
    checkers.complete(text)
    checkers.relevant(text, other, other)
    checkers.says_something(text, other)
    assert checkers.no_copy(text, text) == "copy" or not set(phrases.words(text)) - {"and", "the", "a", "of"}
