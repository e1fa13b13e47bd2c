"""Finds out what kind of server answers, and which model it serves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from recgpt.errors import EngineError, InvalidConfigError, ModelNotFoundError
from recgpt.llm.dialects import Dialect, OpenAIDialect, VllmDialect
from recgpt.llm.llama_server import LlamaServerDialect
from recgpt.llm.remote import Failed, Malformed, Refused, Remote

OWNERS = {"llamacpp": "llama-server", "vllm": "vllm"}
"""`owned_by` in the list of models; anybody else speaks OpenAI's dialect."""


def connect(
    server: Remote, kind: str, model: str, context_tokens: int, extra: Mapping[str, Any], adapter: str
) -> Dialect:
    """Ask the server who it is.

    Raises:
        EngineError: it cannot be reached, or answers in no dialect that we know.
        InvalidConfigError: which model is meant cannot be told.
        ModelNotFoundError: it does not serve the model or the adapter.
    """
    try:
        dialect = _connect(server, kind, model, context_tokens, extra, adapter)
    except (Failed, Refused, Malformed) as error:
        raise EngineError(f"the server {server.url} cannot be used: {error}") from None
    if server.holds_key(dialect.model):
        raise EngineError(f"the server {server.url} cannot be used: the name of its model holds the API key")
    return dialect


def _connect(
    server: Remote, kind: str, model: str, context_tokens: int, extra: Mapping[str, Any], adapter: str
) -> Dialect:
    models = _models(server, needed=kind != "openai" or not model)
    owner = str(models[0].get("owned_by")) if models else ""
    kind = OWNERS.get(owner, "openai") if kind == "auto" else kind
    served = {str(one.get("id")): one for one in models}
    model = _choose(server, model, served, kind)
    about = served.get(model, {})
    if kind == "llama-server":
        return _llama_server(server, model, about, context_tokens, extra, adapter)
    if adapter and kind == "openai":
        raise ModelNotFoundError(
            f"adapter {adapter!r}: OpenAI's dialect knows no adapters; give the tuned model's name as the model"
        )
    if adapter and adapter not in served:
        raise ModelNotFoundError(
            f"the server {server.url} has no adapter {adapter!r}; it serves {_listed(server, served)}"
        )
    own = about.get("max_model_len")
    if type(own) is int and own > 0:
        context_tokens = min(context_tokens, own)
    make = VllmDialect if kind == "vllm" else OpenAIDialect
    # `root` is the path or repository behind a served name.
    identity = json.dumps([model, about.get("root"), served.get(adapter, {}).get("root")])
    return make(server, adapter or model, context_tokens, identity, extra)


def _models(server: Remote, *, needed: bool) -> list[dict[str, Any]]:
    """List the models; a server without that list is fine as long as nothing must be found out."""
    try:
        found = server.call("/v1/models").get("data")
    except Refused as refused:
        if needed or refused.status in (401, 403):
            raise
        found = []
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Malformed("malformed answer: a list of models was expected")
    return found


def _choose(server: Remote, model: str, served: Mapping[str, Any], kind: str) -> str:
    if not model:
        bases = [name for name, one in served.items() if not one.get("parent")]
        if len(bases) != 1:
            raise InvalidConfigError(
                f"which model is meant? The server {server.url} serves {_listed(server, served)}; name one as `model`"
            )
        return bases[0]
    if kind != "openai" and model not in served:
        raise ModelNotFoundError(f"the server {server.url} has no model {model!r}; it serves {_listed(server, served)}")
    return model


def _llama_server(
    server: Remote, model: str, about: Mapping[str, Any], context_tokens: int, extra: Mapping[str, Any], adapter: str
) -> Dialect:
    props = server.call("/props")
    own = props.get("default_generation_settings")
    own = own.get("n_ctx") if isinstance(own, dict) else None
    if type(own) is int and own > 0:
        context_tokens = min(context_tokens, own)
    template, meta = props.get("chat_template"), about.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    identity = json.dumps([template, *(meta.get(key) for key in ("n_vocab", "n_embd", "n_params", "size"))])
    # Every adapter is named in every request: one that the server applies by default must not touch the base model.
    adapters = _adapters(server)
    if adapter:
        rows = [row for row, name in adapters.items() if adapter in (name, PurePath(name).name)]
        if len(rows) != 1:
            names = {PurePath(name).name for name in adapters.values()}
            raise ModelNotFoundError(
                f"the server {server.url} has no adapter {adapter!r}; it has {_listed(server, names)}"
            )
        scales = [{"id": row, "scale": float(row == rows[0])} for row in adapters]
        identity += hashlib.sha256(adapters[rows[0]].encode()).hexdigest()
    else:
        scales = [{"id": row, "scale": 0.0} for row in adapters]
    return LlamaServerDialect(
        server,
        model,
        context_tokens,
        identity,
        {**extra, "lora": scales} if scales else extra,
        template=template if isinstance(template, str) else None,
        bos=str(props.get("bos_token") or ""),
        eos=str(props.get("eos_token") or ""),
    )


def _adapters(server: Remote) -> dict[int, str]:
    """Return number and path of the adapters that a llama-server has loaded."""
    try:
        found = server.call("/lora-adapters").get("data")
    except Refused:
        return {}
    found = found if isinstance(found, list) else []
    return {one["id"]: str(one.get("path")) for one in found if isinstance(one, dict) and type(one.get("id")) is int}


def _listed(server: Remote, names: Iterable[str]) -> str:
    names = sorted(map(server.scrub, names))
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
