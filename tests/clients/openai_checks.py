"""The `openai` Python client against the gateway."""

import asyncio
import json

import openai

import checks
from checks import MODEL_NAME, check

PROMPT = "The capital of France is"
# Set when the gateway holds answers to a JSON Schema; until then it refuses
# response_format with a 400.
STRUCTURED_ANSWERS = True
WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}}}}}
CALL = ('say:<|tool_call>call:weather{city:<|"|>Rome<|"|>,days:2}<tool_call|>')


def client_of(address, kind=openai.OpenAI):
    return kind(base_url=f"http://{address}/v1", api_key="none", max_retries=0, timeout=60)


def complete(servers, prompt=PROMPT, **options):
    options = {"max_tokens": 12, "temperature": 0, **options}
    return client_of(servers.gateway).completions.create(
        model=MODEL_NAME, prompt=prompt, **options)


def chat(servers, text="Say hello.", **options):
    options = {"max_tokens": 12, "temperature": 0, **options}
    return client_of(servers.gateway).chat.completions.create(
        model=MODEL_NAME, messages=[{"role": "user", "content": text}], **options)


def refusal(kind, call, *args, **options):
    try:
        call(*args, **options)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}, found an answer")


@check("openai", "models: list, retrieve, 404 of another")
def models(servers):
    client = client_of(servers.gateway)
    assert [model.id for model in client.models.list()] == [MODEL_NAME]
    assert client.models.retrieve(MODEL_NAME).object == "model"
    refusal(openai.NotFoundError, client.models.retrieve, "other")


@check("openai", "completions: usage adds up, greedy repeats itself")
def completions(servers):
    first = complete(servers)
    usage = first.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert first.choices[0].finish_reason in ("stop", "length")
    assert complete(servers).choices[0].text == first.choices[0].text


@check("openai", "completions: streamed text is the whole text")
def completions_stream(servers):
    whole = complete(servers).choices[0].text
    pieces = [chunk.choices[0].text for chunk in complete(servers, stream=True)
              if chunk.choices]
    assert "".join(pieces) == whole and len(pieces) > 1


@check("openai", "completions: several prompts and choices, in order")
def completions_many(servers):
    answer = complete(servers, prompt=[PROMPT, "1, 2, 3,"], n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    texts = [choice.text for choice in answer.choices]
    assert texts[0] == texts[1] and texts[2] == texts[3]
    assert texts[0] == complete(servers).choices[0].text


@check("openai", "completions: a seed repeats a sampled text")
def completions_seed(servers):
    texts = [complete(servers, temperature=1.0, seed=seed, max_tokens=20).choices[0].text
             for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 1


@check("openai", "completions: stop and length end a text")
def completions_ends(servers):
    whole = complete(servers, extra_body={"ignore_eos": True})
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == 12
    text = whole.choices[0].text
    stop = text[len(text) // 2:][:2]
    stopped = complete(servers, stop=[stop], extra_body={"ignore_eos": True})
    assert stopped.choices[0].finish_reason == "stop"
    assert stopped.choices[0].text == text[:text.index(stop)]


@check("openai", "completions: log-probabilities of the chosen tokens")
def completions_logprobs(servers):
    choice = complete(servers, logprobs=1).choices[0]
    assert "".join(choice.logprobs.tokens) == choice.text
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)


@check("openai", "chat: an answer with usage", needs_turns=True)
def chat_answer(servers):
    answer = chat(servers)
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert isinstance(choice.message.content, str)
    assert answer.usage.completion_tokens <= 12
    assert answer.model == MODEL_NAME


@check("openai", "chat: streamed answer is the whole, usage comes last",
       needs_turns=True)
def chat_stream(servers):
    whole = chat(servers).choices[0]
    chunks = list(chat(servers, stream=True, stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == (whole.message.content or "")
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert reasons[-1] == whole.finish_reason
    assert chunks[-1].choices == [] and chunks[-1].usage.total_tokens > 0


@check("openai", "chat: the client's own stream helper", needs_turns=True)
def chat_stream_helper(servers):
    whole = chat(servers, extra_body={"ignore_eos": True}).choices[0].message.content
    # It takes an answer that was cut at max_tokens for an error.
    stop = whole[len(whole) // 2:][:2]
    with client_of(servers.gateway).chat.completions.stream(
            model=MODEL_NAME, messages=[{"role": "user", "content": "Say hello."}],
            temperature=0, max_tokens=12, stop=[stop],
            extra_body={"ignore_eos": True}) as stream:
        stream.until_done()
        (choice,) = stream.get_final_completion().choices
    assert choice.finish_reason == "stop"
    assert choice.message.content == whole[:whole.index(stop)]


@check("openai", "chat: log-probabilities spell the answer", needs_turns=True)
def chat_logprobs(servers):
    choice = chat(servers, logprobs=True).choices[0]
    tokens = b"".join(bytes(t.bytes) for t in choice.logprobs.content)
    assert tokens.decode() == choice.message.content


@check("openai", "chat: 8 callers at once get what each would get alone",
       needs_turns=True)
def chat_parallel(servers):
    texts = [f"Count to {n}." for n in range(8)]
    alone = [chat(servers, text).choices[0].message.content for text in texts]

    async def ask_all():
        async with client_of(servers.gateway, openai.AsyncOpenAI) as client:
            answers = await asyncio.gather(*(
                client.chat.completions.create(
                    model=MODEL_NAME, messages=[{"role": "user", "content": text}],
                    max_tokens=12, temperature=0) for text in texts))
        return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(ask_all()) == alone


@check("openai", "tools: calls, whole and streamed (stand-in for a Gemma 4)")
def tools(servers):
    client = client_of(servers.tools_gateway)
    question = {"model": MODEL_NAME, "tools": [WEATHER],
                "messages": [{"role": "user", "content": CALL}]}
    whole = client.chat.completions.create(**question).choices[0]
    with client.chat.completions.stream(**question) as stream:
        stream.until_done()
        streamed = stream.get_final_completion().choices[0]
    for choice in (whole, streamed):
        assert choice.finish_reason == "tool_calls"
        (call,) = choice.message.tool_calls
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments) == {"city": "Rome", "days": 2}


@check("openai", "errors: model, parameter, length of the prompt")
def errors(servers):
    client = client_of(servers.gateway)
    other = refusal(openai.NotFoundError, client.completions.create, model="other",
                    prompt=PROMPT)
    assert other.code == "model_not_found"
    value = refusal(openai.BadRequestError, complete, servers, temperature=-1)
    assert value.param == "temperature"
    size = refusal(openai.BadRequestError, complete, servers, prompt="a b c d " * 2000)
    assert size.code == "context_length_exceeded"


@check("openai", "a stream that is closed ends its generation")
def cancel(servers):
    before = servers.metric("num_requests_running")
    stream = complete(servers, stream=True, max_tokens=2000,
                      extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    checks.wait_for(lambda: servers.metric("num_requests_running") <= before,
                    "the generation to end")


PERSON = {"type": "object", "additionalProperties": False,
          "required": ["name", "age"],
          "properties": {"name": {"type": "string", "maxLength": 20},
                         "age": {"type": "integer", "minimum": 0, "maximum": 150}}}


def structured_answers(servers):
    """response_format: an answer that is JSON, of the schema if there is one."""
    answer = chat(servers, "Describe a person.", max_tokens=200, response_format={
        "type": "json_schema",
        "json_schema": {"name": "person", "strict": True, "schema": PERSON}})
    assert answer.choices[0].finish_reason == "stop"
    person = json.loads(answer.choices[0].message.content)
    assert set(person) == {"name", "age"}
    assert isinstance(person["name"], str) and isinstance(person["age"], int)
    answer = chat(servers, "Describe a person in JSON.", max_tokens=200,
                  response_format={"type": "json_object"})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


if STRUCTURED_ANSWERS:
    check("openai", "response_format: json_schema and json_object",
          needs_turns=True)(structured_answers)
