"""LangChain's ChatOpenAI against a real agent: streams, tools and structured output, whole and in turns."""

from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

from tests.support.agent import AgentProcess

pytestmark = pytest.mark.engine


class Trip(BaseModel):
    """Where to go."""

    city: Literal["Rome", "Oslo"]
    nights: int = Field(ge=1, le=9)


@tool
def weather(city: Literal["Rome", "Oslo"]) -> str:
    """The weather in a city, now."""
    return f"sunny in {city}"


@pytest.fixture
def model(tools_agent: AgentProcess) -> ChatOpenAI:
    options: dict[str, Any] = {"model": "tools", "api_key": "none", "temperature": 0, "max_retries": 0}
    return ChatOpenAI(base_url=f"{tools_agent.url}/v1", max_tokens=100, **options)


def test_a_chat_and_its_stream_say_the_same(model: ChatOpenAI) -> None:
    brief = model.bind(max_tokens=8)
    whole = brief.invoke("What is the capital of France?")
    assert isinstance(whole, AIMessage)
    assert whole.content
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["output_tokens"] <= 8
    assert (
        "".join(str(chunk.content) for chunk in brief.stream("What is the capital of France?"))
        == whole.content
    )


def test_a_tool_is_called_run_and_answered(model: ChatOpenAI) -> None:
    forced = model.bind_tools([weather], tool_choice="weather", parallel_tool_calls=False)
    question = HumanMessage("What is the weather in Rome?")
    called = forced.invoke([question])
    (call,) = called.tool_calls
    assert call["name"] == "weather"
    result = weather.invoke(call)
    assert isinstance(result, ToolMessage)
    assert result.content in ("sunny in Rome", "sunny in Oslo")
    assert model.invoke([question, called, result]).content


def test_a_streamed_call_adds_up(model: ChatOpenAI) -> None:
    forced = model.bind_tools([weather], tool_choice="any", parallel_tool_calls=False)
    whole = forced.invoke("What is the weather in Rome?")
    chunks = list(forced.stream("What is the weather in Rome?"))
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    assert isinstance(total, AIMessage)
    assert [call["args"] for call in total.tool_calls] == [call["args"] for call in whole.tool_calls]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_an_answer_is_an_object_of_the_wanted_class(
    model: ChatOpenAI, method: Literal["json_schema", "function_calling"]
) -> None:
    trip = model.with_structured_output(Trip, method=method).invoke("Plan a trip.")
    assert isinstance(trip, Trip)


def test_responses_are_spoken_too(tools_agent: AgentProcess) -> None:
    model = ChatOpenAI(
        model="tools",
        base_url=f"{tools_agent.url}/v1",
        api_key=lambda: "none",
        temperature=0,
        use_responses_api=True,
        max_retries=0,
    )
    whole = model.bind(max_output_tokens=8).invoke("What is the capital of France?")
    assert whole.text
    forced = model.bind_tools([weather], tool_choice="weather", parallel_tool_calls=False)
    assert forced.invoke("What is the weather in Rome?").tool_calls[0]["name"] == "weather"


def test_vectors_by_token_ids_which_is_how_langchain_asks(tools_agent: AgentProcess) -> None:
    embeddings = OpenAIEmbeddings(
        model="vectors",
        base_url=f"{tools_agent.url}/v1",
        api_key=lambda: "none",
        check_embedding_ctx_length=False,
    )
    assert [len(vector) for vector in embeddings.embed_documents(["a cat", "a dog"])] == [576, 576]
