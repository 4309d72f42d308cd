"""What answers look like, as JSON Schemas for the OpenAPI document. They say what is always there. PURE."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def one(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def many(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def obj(optional: tuple[str, ...] = (), /, **fields: Schema) -> Schema:
    """An object with these fields; all but the `optional` ones are always there."""
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": fields, "required": required}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_CALL = obj(id=TEXT, type=one("function"), function=obj(name=TEXT, arguments=TEXT))
_FINISH = one("stop", "length", "tool_calls")
_OF_CHOICE = {"index": WHOLE, "finish_reason": _FINISH, "logprobs": or_null({"type": "object"})}

COMPONENTS: dict[str, Schema] = {
    "Error": obj(error=obj(message=TEXT, type=TEXT, param=or_null(TEXT), code=TEXT)),
    "Usage": obj(
        prompt_tokens=WHOLE,
        completion_tokens=WHOLE,
        total_tokens=WHOLE,
        prompt_tokens_details=obj(cached_tokens=WHOLE),
    ),
    "ChatCompletion": obj(
        id=TEXT,
        object=one("chat.completion"),
        created=WHOLE,
        model=TEXT,
        system_fingerprint=TEXT,
        choices=many(
            obj(
                **_OF_CHOICE,
                message=obj(
                    ("tool_calls",), role=one("assistant"), content=or_null(TEXT), tool_calls=many(_CALL)
                ),
            )
        ),
        usage=ref("Usage"),
    ),
    "Completion": obj(
        id=TEXT,
        object=one("text_completion"),
        created=WHOLE,
        model=TEXT,
        system_fingerprint=TEXT,
        choices=many(obj(**_OF_CHOICE, text=TEXT)),
        usage=ref("Usage"),
    ),
    "Response": obj(
        id=TEXT,
        object=one("response"),
        created_at=WHOLE,
        status=one("completed", "incomplete"),
        incomplete_details=or_null(obj(reason=TEXT)),
        model=TEXT,
        output=many(obj(id=TEXT, type=one("message", "function_call"), status=TEXT)),
        usage=obj(
            input_tokens=WHOLE,
            input_tokens_details=obj(cached_tokens=WHOLE),
            output_tokens=WHOLE,
            total_tokens=WHOLE,
        ),
    ),
    "Embeddings": obj(
        object=one("list"),
        model=TEXT,
        data=many(obj(object=one("embedding"), index=WHOLE, embedding={"anyOf": [many(NUMBER), TEXT]})),
        usage=obj(prompt_tokens=WHOLE, total_tokens=WHOLE),
    ),
    "Event": obj(("event",), data=TEXT, event=TEXT),
    "Tokens": obj(tokens=many({"anyOf": [WHOLE, obj(id=WHOLE, piece=TEXT)]})),
    "Model": obj(id=TEXT, object=one("model"), created=WHOLE, owned_by=TEXT, root=TEXT, parent=or_null(TEXT)),
    "Models": obj(object=one("list"), data=many(ref("Model"))),
    "Alive": obj(status=one("ok")),
    "Readiness": obj(("release", "waiting", "models"), status=TEXT, release=TEXT, waiting=many(TEXT)),
}
