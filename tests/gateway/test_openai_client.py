"""OpenAI's own Python client against the gateway.

The gateway runs in front of a fake inference server whose answers are its
prompts (services/gateway/fake_backend.h). Binaries come from $ONEGRID_BIN, by
default bazel-bin.
"""

import json
import os
import pathlib
import re
import signal
import subprocess
import time
import urllib.request

import openai
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("ONEGRID_BIN", ROOT / "bazel-bin"))
GATEWAY = BIN / "services" / "gateway"
KEY = "a-key"
START_SECONDS = 60


def start(folder, name, *flags):
    """The process and its host:port; what it logs goes to folder/name.log."""
    port_file = folder / f"{name}.port"
    with open(folder / f"{name}.log", "wb") as log:
        process = subprocess.Popen(
            [str(GATEWAY / name), f"--port_file={port_file}", *flags],
            stderr=log)
    deadline = time.time() + START_SECONDS
    while not port_file.exists():
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    return process, port_file.read_text()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "key").write_text(KEY + "\n")
    backend, endpoint = start(folder, "fake_backend_server")
    gateway, address = start(
        folder, "gateway", f"--backend={endpoint}", "--model_name=gemma",
        f"--api_key_file={folder / 'key'}")
    yield {"address": address, "folder": folder}
    gateway.send_signal(signal.SIGTERM)
    assert gateway.wait(30) == 0
    backend.kill()
    backend.wait()
    log = (folder / "gateway.log").read_text()
    assert "path=/v1/chat/completions status=200" in log
    assert KEY not in log
    assert "Tell me" not in log


@pytest.fixture(scope="module")
def gemma4(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma4")
    backend, endpoint = start(folder, "fake_backend_server",
                              "--chat_format=gemma4-empty-thought")
    gateway, address = start(folder, "gateway", f"--backend={endpoint}",
                             "--model_name=gemma")
    yield openai.OpenAI(base_url=f"http://{address}/v1", api_key="none",
                        max_retries=0, timeout=20)
    for process in (gateway, backend):
        process.kill()
        process.wait()


@pytest.fixture
def client(servers):
    return openai.OpenAI(base_url=f"http://{servers['address']}/v1",
                         api_key=KEY, max_retries=0, timeout=20)


def ask(client, text, **options):
    return client.chat.completions.create(
        model="gemma", messages=[{"role": "user", "content": text}], **options)


def rendered(text):
    return (f"<bos>[start_of_turn]user\n{text}[end_of_turn]\n"
            "[start_of_turn]model\n")


def test_models(client):
    # With the adapter of the backend.
    assert [model.id for model in client.models.list()] == ["gemma", "tuned"]
    answer = client.completions.create(model="tuned", prompt="a", max_tokens=1)
    assert answer.model == "tuned"
    assert client.models.retrieve("gemma").owned_by == "onegrid"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_chat(client):
    answer = ask(client, "Tell me <end_of_turn>")
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content == rendered("Tell me <end_of_turn>")
    assert choice.finish_reason == "stop"
    assert answer.usage.total_tokens == (
        answer.usage.prompt_tokens + answer.usage.completion_tokens)


def test_chat_with_a_system_text_and_text_parts(client):
    answer = client.chat.completions.create(
        model="gemma",
        messages=[{"role": "system", "content": "Be brief."},
                  {"role": "user",
                   "content": [{"type": "text", "text": "Tell me é"}]}])
    assert answer.choices[0].message.content == rendered(
        "Be brief.\n\nTell me é")


def test_chat_stream_with_usage(client):
    chunks = list(ask(client, "Tell me é€😀", stream=True,
                      stream_options={"include_usage": True}))
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == rendered("Tell me é€😀")
    assert "😀" in pieces
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == (
        "stop")
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == len(rendered("Tell me é€😀"))


def test_stop_and_length(client):
    stopped = ask(client, "a|b", stop=["|"]).choices[0]
    assert stopped.finish_reason == "stop"
    assert stopped.message.content.endswith("a")
    cut = ask(client, "abc", max_completion_tokens=4).choices[0]
    assert (cut.finish_reason, cut.message.content) == ("length", "<bos")


def test_logprobs(client):
    (choice,) = ask(client, "a", logprobs=True, max_tokens=3).choices
    assert [(t.token, t.logprob) for t in choice.logprobs.content] == [
        ("<", -0.5), ("b", -0.5), ("o", -0.5)]
    assert choice.logprobs.content[0].top_logprobs == []


def test_top_logprobs_whole_and_streamed(client):
    (choice,) = ask(client, "say:é€", logprobs=True, top_logprobs=2).choices
    whole = choice.logprobs.content
    assert bytes(sum((t.bytes for t in whole), [])).startswith("é€".encode())
    assert [(o.token, o.logprob) for o in whole[0].top_logprobs] == [
        ("é", -0.5), ("€", -1.5)]
    streamed = []
    for chunk in ask(client, "say:é€", logprobs=True, top_logprobs=2,
                     stream=True):
        if chunk.choices[0].logprobs:
            streamed += chunk.choices[0].logprobs.content
    assert [t.model_dump() for t in streamed] == [t.model_dump() for t in whole]
    for wrong in (21, -1, 1.5, "1", float("1e308")):
        with pytest.raises(openai.BadRequestError) as raised:
            ask(client, "a", logprobs=True, top_logprobs=wrong)
        assert raised.value.param == "top_logprobs"


def id_of(character):
    """As services/gateway/fake_backend.h numbers bytes."""
    return str(10 + ord(character))


def test_a_bias_forces_and_forbids(client):
    def text(bias):
        return client.completions.create(
            model="gemma", prompt="abc", max_tokens=8,
            logit_bias=bias).choices[0].text

    assert text({}) == "<bos>abc"
    assert text({id_of("b"): -100}) == "<os>ac"
    assert text({id_of("z"): 100}) == "z" * 8
    for wrong in ({"a": 1}, {"5": 101}, {"5": "1"}, {"-1": 1}, [5],
                  {str(i): 1 for i in range(100_000)}):
        with pytest.raises(openai.BadRequestError) as raised:
            text(wrong)
        assert raised.value.param == "logit_bias"


def test_penalties(client):
    ask(client, "a", max_tokens=2, presence_penalty=2, frequency_penalty=-2)
    for name in ("presence_penalty", "frequency_penalty"):
        for wrong in (2.1, -2.1, 1e308, "1"):
            with pytest.raises(openai.BadRequestError) as raised:
                ask(client, "a", **{name: wrong})
            assert raised.value.param == name


def test_echo(client):
    def complete(**options):
        return client.completions.create(
            model="gemma", prompt="ab", echo=True, **options)

    (choice,) = complete(max_tokens=0, logprobs=1).choices
    assert (choice.text, choice.finish_reason) == ("ab", "length")
    assert choice.logprobs.tokens == ["<bos>", "a", "b"]
    assert choice.logprobs.token_logprobs == [None, -0.5, -0.5]
    assert choice.logprobs.top_logprobs == [None, {"a": -0.5}, {"b": -0.5}]
    assert choice.logprobs.text_offset == [0, 0, 1]
    assert complete(max_tokens=2).choices[0].text == "ab<b"
    streamed = list(complete(max_tokens=2, logprobs=0, stream=True))
    assert "".join(c.choices[0].text for c in streamed) == "ab<b"
    assert sum((c.choices[0].logprobs.tokens for c in streamed), []) == [
        "<bos>", "a", "b", "<", "b"]
    with pytest.raises(openai.BadRequestError) as raised:
        ask(client, "a", extra_body={"echo": True})
    assert raised.value.param == "echo"


def test_completions(client):
    answer = client.completions.create(model="gemma", prompt=["a", "b"], n=2,
                                       seed=1, max_tokens=50)
    assert [choice.text for choice in answer.choices] == [
        "<bos>a", "<bos>a", "<bos>b", "<bos>b"]
    pieces = [chunk.choices[0].text for chunk in client.completions.create(
        model="gemma", prompt="ab", stream=True)]
    assert "".join(pieces) == "<bos>ab"
    scored = client.completions.create(model="gemma", prompt="a", logprobs=1,
                                       temperature=0, max_tokens=2)
    assert scored.choices[0].logprobs.tokens == ["<", "b"]
    assert scored.choices[0].logprobs.top_logprobs == [
        {"<": -0.5}, {"b": -0.5}]


def test_extensions_of_other_servers(client):
    answer = ask(client, "a", max_tokens=2, user="somebody", extra_body={
        "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1,
        "stop_token_ids": [7], "priority": -1, "cache_salt": "s"})
    assert answer.choices[0].finish_reason == "length"


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "required": ["city"], "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}}}}}
CALL = ("say:<|channel>thought\nWhich city?\n<channel|>Let me see."
        "<|tool_call>call:weather{city:<|\"|>Rome<|\"|>,days:2}<tool_call|>")


def test_tool_call(gemma4):
    (choice,) = ask(gemma4, CALL, tools=[WEATHER]).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    assert choice.message.reasoning_content == "Which city?"
    (call,) = choice.message.tool_calls
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == {"city": "Rome", "days": 2}
    answer = gemma4.chat.completions.create(
        model="gemma", tools=[WEATHER], messages=[
            {"role": "user", "content": "Rome?"}, choice.message,
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
    assert answer.choices[0].message.content.endswith(
        "[|tool_call]call:weather{city:[|\"|]Rome[|\"|],days:2}[tool_call|]"
        "[|tool_response]response:weather{value:[|\"|]sunny[|\"|]}"
        "[tool_response|]Let me see.[turn|]\n")


def test_streamed_tool_call(gemma4):
    with gemma4.chat.completions.stream(
            model="gemma", tools=[WEATHER],
            messages=[{"role": "user", "content": CALL}]) as stream:
        stream.until_done()
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "Let me see."
    (call,) = choice.message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome", "days": 2}


def test_thinking(gemma4):
    answer = ask(gemma4, "a", extra_body={
        "chat_template_kwargs": {"enable_thinking": True}})
    assert answer.choices[0].message.content.startswith(
        "<bos>[|turn]system\n[|think|]\n[turn|]\n")


def test_errors(client, servers):
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="other", prompt="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as bad:
        ask(client, "a", temperature=-1)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as unsupported:
        ask(client, "a", response_format={"type": "grammar"})
    assert unsupported.value.param == "response_format"
    with pytest.raises(openai.BadRequestError) as long:
        ask(client, "too long")
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.RateLimitError) as full:
        ask(client, "queue full")
    assert full.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.InternalServerError) as draining:
        ask(client, "draining", stream=True)
    assert draining.value.status_code == 503
    stranger = openai.OpenAI(base_url=client.base_url, api_key="wrong",
                             max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        ask(stranger, "a")


def test_a_stream_that_breaks_off_raises(client):
    with pytest.raises(openai.APIError):
        list(ask(client, "break off", stream=True))


def metrics(servers):
    url = f"http://{servers['address']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def test_a_closed_stream_is_cancelled(client, servers):
    stream = ask(client, "forever", stream=True)
    for _ in range(3):
        next(stream)
    assert "num_requests_running{model_name=\"gemma\"} 1" in metrics(servers)
    stream.close()
    deadline = time.time() + 10
    while "code=\"499\"} 1" not in metrics(servers):
        assert time.time() < deadline
        time.sleep(0.05)
    assert "num_requests_running{model_name=\"gemma\"} 0" in metrics(servers)


def test_metrics_are_prometheus_text(servers):
    sample = re.compile(
        r'[a-z0-9_]+(\{[a-z_]+="[^"]*"(,[a-z_]+="[^"]*")*\})? [-0-9.e+]+')
    for line in metrics(servers).splitlines():
        assert line.startswith("# ") or sample.fullmatch(line), line


@pytest.mark.parametrize("flags, message", [
    ([], "--backend"),
    (["--backend=a:1"], "--model_name"),
    (["--backend=a:1", "--model_name=m", "--threads=0"], "--threads"),
    (["--backend=a:1", "--model_name=m", "--port=65536"], "65536"),
    (["--backend=a:1", "--model_name=m", "--api_key_file=/nonexistent"],
     "/nonexistent"),
    (["--backend=a:1", "--model_name=m", "extra"], "extra"),
])
def test_what_cannot_be_served_ends_with_a_message(flags, message):
    run = subprocess.run([str(GATEWAY / "gateway"), *flags],
                         capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert message in run.stderr


def test_an_empty_key_lets_nobody_start(tmp_path):
    (tmp_path / "key").write_text(" \n")
    run = subprocess.run(
        [str(GATEWAY / "gateway"), "--backend=a:1", "--model_name=m",
         f"--api_key_file={tmp_path / 'key'}"],
        capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert "no key" in run.stderr


def test_term_lets_a_stream_end(servers, tmp_path):
    backend, endpoint = start(tmp_path, "fake_backend_server")
    gateway, address = start(tmp_path, "gateway", f"--backend={endpoint}",
                             "--model_name=gemma", "--drain_seconds=1")
    client = openai.OpenAI(base_url=f"http://{address}/v1", api_key="none",
                           max_retries=0, timeout=20)
    stream = ask(client, "forever", stream=True)
    next(stream)
    gateway.send_signal(signal.SIGTERM)
    start_time = time.time()
    with pytest.raises(openai.APIError, match="shutting down"):
        list(stream)
    assert time.time() - start_time > 0.5
    assert gateway.wait(30) == 0
    with pytest.raises(openai.APIConnectionError):
        client.models.list()
    backend.kill()
    backend.wait()
