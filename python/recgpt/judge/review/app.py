"""The review server's routes: one page with its scripts and style, what it reads, and the few things that it writes."""

from __future__ import annotations

import hashlib
import sqlite3
from importlib import resources
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from recgpt.errors import JudgeError
from recgpt.judge.buffer import ADJUDICATED, GOLD, SKIP, Label
from recgpt.judge.review import repetition
from recgpt.judge.review.guard import Access, App, Guard
from recgpt.judge.review.questions import Questions, named, shown_rows
from recgpt.text import clean

PAGE = {
    "review.html": "text/html; charset=utf-8",
    "review.css": "text/css; charset=utf-8",
    **dict.fromkeys(
        ("main.js", "labels.js", "sample.js", "lists.js", "progress.js", "outbox.js", "dom.js"),
        "text/javascript; charset=utf-8",
    ),
}
"""Files of the page; nothing else is served."""
_NOTE = 1000

Name = Annotated[str, Query(max_length=200)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]


class _Write(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    name: str = Field(max_length=200)
    seconds: Seconds | None = None


class Word(_Write):
    """What a person says of a sample under a criterion; neither verdict nor skip takes the last word back."""

    sample: str = Field(max_length=64)
    criterion: str = Field(max_length=100)
    verdict: str | None = Field(None, max_length=100)
    skip: str | None = Field(None, max_length=_NOTE)
    note: str = Field("", max_length=_NOTE)
    kind: Literal["label", "adjudication"] = "label"
    gold: bool = False
    """With an adjudication: ask it of others as a gold question, the note being the feedback."""


class Compared(_Write):
    """What a person says of a pair of lists; None takes it back."""

    pair: str = Field(max_length=64)
    answer: dict[str, Any] | None


def build(questions: Questions, access: Access) -> App:
    """Make the application, with the guard before it."""
    store = questions.store
    # No page of documentation and no schema: what is not there cannot be asked.
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    files = {name: (resources.files("recgpt.judge.review") / "page" / name).read_bytes() for name in PAGE}
    # Answers that a page could not send yet wait in the browser under this name, and only go where they belong.
    own = hashlib.sha256(str(store.buffer.path.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @app.exception_handler(JudgeError)
    def refuse(request: Request, error: JudgeError) -> Response:
        # A full or busy disk may be mended, and the page sends its words again; what does not fit never will.
        status = 503 if isinstance(error.__cause__, sqlite3.Error) else 409
        return JSONResponse({"error": clean(str(error), limit=1000)}, status)

    @app.exception_handler(RequestValidationError)
    def misread(request: Request, error: RequestValidationError) -> Response:
        # Without what came: FastAPI's own answer repeats it, and a NaN in it would be no JSON.
        fields = {".".join(str(part) for part in one["loc"]): one["msg"] for one in error.errors()}
        said = "; ".join(f"{field}: {text}" for field, text in fields.items())
        return JSONResponse({"error": clean(f"this does not fit: {said}", limit=1000)}, 422)

    @app.get("/")
    def page() -> Response:
        return Response(files["review.html"], media_type=PAGE["review.html"])

    @app.get("/page/{name}")
    def part(name: str) -> Response:
        if name not in files or name == "review.html":
            return JSONResponse({"error": "there is no such file"}, 404)
        return Response(files[name], media_type=PAGE[name])

    @app.get("/api/start")
    def start() -> dict[str, Any]:
        seen, settings = store.read(), questions.settings
        criteria = [one for task in settings.tasks for one in questions.asked(task)]
        return {
            "csrf": access.csrf,
            "buffer": own,
            "annotators": settings.annotators,
            "pairs": len(seen.pairs),
            "criteria": {
                one.key: {
                    "name": one.name.replace("_", " "),
                    "question": clean(one.question),
                    "scale": list(one.scale),
                    "passes": [word for word in one.scale if word in one.passes],
                    "positive": [[clean(row.text), clean(row.why)] for row in one.positive],
                    "negative": [[clean(row.text), clean(row.why)] for row in one.negative],
                }
                for one in criteria
            },
            "questions": [
                {"key": key, "text": text, "several": several, "options": [list(option) for option in options]}
                for key, text, several, options in repetition.QUESTIONS
            ],
        }

    @app.get("/api/next")
    def following(name: Name, have: Annotated[str, Query(max_length=2000)] = "") -> dict[str, Any]:
        who = named(name)
        held = [one for one in have.split(",") if one]
        samples = questions.next(who, have=held)
        return {"samples": samples, "recent": questions.recent(store.read(), who)}

    @app.get("/api/sample")
    def sample(name: Name, id: Annotated[str, Query(max_length=64)]) -> dict[str, Any]:
        return questions.show(store.read(), id, named(name))

    @app.get("/api/progress")
    def progress(name: Name) -> dict[str, Any]:
        return questions.progress(named(name))

    @app.get("/api/disputes")
    def disputes(name: Name) -> dict[str, Any]:
        who, seen = named(name), store.read()
        found = questions.disputes(seen)
        return {
            "left": len(found),
            "disputes": [questions.dispute(seen, one, who) for one in found[:5]],
            "recent": questions.recent(seen, ADJUDICATED + who),
        }

    @app.post("/api/word")
    def word(said: Word) -> dict[str, Any]:
        who = named(said.name)
        kept = store.read().samples.get(said.sample)
        if kept is None:
            raise JudgeError(f"the sample {said.sample} is not in the buffer {store.buffer.path}; add it first")
        if said.verdict is not None and said.skip is not None:
            raise JudgeError("a sample is answered or skipped, but both came")
        if said.gold and (said.kind != "adjudication" or said.verdict is None):
            raise JudgeError("a gold question needs the verdict of an adjudication")
        note = clean(said.note, limit=_NOTE)
        if said.skip is not None:
            note = SKIP + (clean(said.skip, limit=_NOTE) or "no reason given")
        elif note.startswith(SKIP) or said.verdict is None:
            note = "" if said.verdict is not None else "undo"
        person = who if said.kind == "label" else ADJUDICATED + who

        def label(annotator: str) -> Label:
            return Label(said.sample, said.criterion, annotator, said.verdict, note, said.seconds, round=kept.round)

        store.say(label(person))
        if said.gold:
            store.say(label(GOLD))
        return {"sample": questions.show(store.read(), said.sample, who)}

    @app.get("/api/pairs")
    def pairs(name: Name) -> dict[str, Any]:
        who, seen = named(name), store.read()
        mine = [one for one, person in seen.answers if person == who]
        count: dict[str, int] = {}
        for one, _ in seen.answers:
            count[one] = count.get(one, 0) + 1
        # Begun pairs first, so that three people soon agree on some instead of one person on each.
        left = [
            one
            for one in sorted(seen.pairs, key=lambda one: (-count.get(one, 0), one))
            if one not in mine and count.get(one, 0) < repetition.ANNOTATORS
        ]
        return {"mine": mine[::-1], "left": len(left), "pairs": [_pair(seen, one, who) for one in left[:3]]}

    @app.get("/api/pair")
    def pair(name: Name, id: Annotated[str, Query(max_length=64)]) -> dict[str, Any]:
        who, seen = named(name), store.read()
        if id not in seen.pairs:
            raise JudgeError(f"the pair of lists {id} is not in the buffer {store.buffer.path}")
        return _pair(seen, id, who)

    @app.post("/api/compared")
    def compared(said: Compared) -> dict[str, Any]:
        who, seen = named(said.name), store.read()
        if said.pair not in seen.pairs:
            raise JudgeError(f"the pair of lists {said.pair} is not in the buffer {store.buffer.path}; add it first")
        answer = None if said.answer is None else repetition.checked(said.answer, seen.pairs[said.pair].lists)
        store.answer(said.pair, who, answer, said.seconds)
        return {"saved": True}

    guarded: App = Guard(app, access)
    return guarded


def _pair(seen: Any, id: str, who: str) -> dict[str, Any]:
    """A pair as its page has it: without the names of the arms."""
    found = seen.pairs[id]
    return {
        "id": id,
        "attributes": clean(found.attributes, limit=1200),
        "history": shown_rows(found.history),
        "lists": [
            [{"title": clean(item.get("title")), "detail": clean(item.get("detail"))} for item in items]
            for items in found.lists
        ],
        "answer": seen.answers.get((id, who)),
    }
