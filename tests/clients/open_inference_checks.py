"""Triton's Python client, `tritonclient.grpc`, against the inference server."""

import asyncio
import json
import queue

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

import openai_checks
from checks import MODEL_NAME, check, wait_for

CLIENT = "tritonclient"
PROMPT = openai_checks.PROMPT
TOKENS = 12


def tensor(name, values, datatype, shape=None, kind=triton):
    values = np.array(values, dtype={
        "BYTES": np.object_, "INT32": np.int32, "INT64": np.int64, "FP32": np.float32,
        "UINT64": np.uint64, "BOOL": bool}[datatype]).reshape(shape or [len(values)])
    found = kind.InferInput(name, list(values.shape), datatype)
    found.set_data_from_numpy(values)
    return found


def inputs(text=PROMPT, tokens=TOKENS, stream=False, shape=(1,), kind=triton):
    return [tensor("text_input", [text.encode()], "BYTES", shape, kind),
            tensor("max_tokens", [tokens], "INT32", shape, kind),
            tensor("ignore_eos", [True], "BOOL", shape, kind),
            tensor("stream", [stream], "BOOL", shape, kind)]


def outputs(*names):
    return [triton.InferRequestedOutput(name) for name in names]


def client_of(servers):
    return triton.InferenceServerClient(servers.endpoint)


def text_of(result):
    return result.as_numpy("text_output").reshape(-1)[0].decode()


def expected_text(servers):
    """What the other protocol answers."""
    return openai_checks.complete(servers, max_tokens=TOKENS,
                                  extra_body={"ignore_eos": True}).choices[0].text


def refusal(code, call, *args, **options):
    try:
        call(*args, **options)
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{code}", error
        return error.message()
    raise AssertionError(f"expected {code}, found an answer")


class Stream:
    """A stream and the responses that came, (result, error) each."""

    def __init__(self, servers, **options):
        self.client = client_of(servers)
        self.responses = queue.Queue()
        self.client.start_stream(
            callback=lambda result, error: self.responses.put((result, error)), **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.stop_stream()
        self.client.close()

    def send(self, request_id, tensors, **options):
        self.client.async_stream_infer(MODEL_NAME, tensors, request_id=request_id, **options)

    def next(self):
        return self.responses.get(timeout=60)

    def answer(self):
        """Results up to the final one."""
        results = []
        while True:
            result, error = self.next()
            assert error is None, error
            results.append(result)
            if is_final(result):
                return results


def is_final(result):
    return result.get_response().parameters["triton_final_response"].bool_param


@check(CLIENT, "server and model: live, ready, not found")
def readiness(servers):
    client = client_of(servers)
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready(MODEL_NAME) and client.is_model_ready(MODEL_NAME, "1")
    refusal("NOT_FOUND", client.is_model_ready, "other")
    refusal("NOT_FOUND", client.is_model_ready, MODEL_NAME, "2")


@check(CLIENT, "metadata, configuration and index name the model's tensors")
def metadata(servers):
    client = client_of(servers)
    assert client.get_server_metadata().name == "onegrid"
    found = client.get_model_metadata(MODEL_NAME)
    assert list(found.versions) == ["1"]
    assert found.inputs[0].name == "text_input" and found.inputs[0].datatype == "BYTES"
    assert "text_output" in [output.name for output in found.outputs]
    config = client.get_model_config(MODEL_NAME, as_json=True)["config"]
    assert config["model_transaction_policy"]["decoupled"]
    assert [i["name"] for i in config["input"]] == [i.name for i in found.inputs]
    (model,) = client.get_model_repository_index().models
    assert (model.name, model.state) == (MODEL_NAME, "READY")
    refusal("NOT_FOUND", client.get_model_metadata, "other")


@check(CLIENT, "infer: the text that the OpenAI API answers with")
def infer(servers):
    result = client_of(servers).infer(MODEL_NAME, inputs(), request_id="7")
    assert text_of(result) == expected_text(servers)
    response = result.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", MODEL_NAME, "1")


@check(CLIENT, "infer: tensors of shape [1, 1] are answered with [1, 1]")
def infer_batched(servers):
    result = client_of(servers).infer(MODEL_NAME, inputs(shape=(1, 1)))
    assert result.as_numpy("text_output").shape == (1, 1)
    assert text_of(result) == expected_text(servers)


@check(CLIENT, "infer: ids, log-probabilities, reason and counts")
def infer_outputs(servers):
    result = client_of(servers).infer(MODEL_NAME, inputs(), outputs=outputs(
        "output_ids", "text_output", "output_log_probs", "finish_reason",
        "num_input_tokens", "num_output_tokens"))
    ids = result.as_numpy("output_ids")
    assert ids.dtype == np.int32 and len(ids) == TOKENS
    logprobs = result.as_numpy("output_log_probs")
    assert logprobs.dtype == np.float32 and len(logprobs) == TOKENS and (logprobs <= 0).all()
    assert result.as_numpy("finish_reason")[0] == b"length"
    assert result.as_numpy("num_output_tokens")[0] == TOKENS
    usage = openai_checks.complete(servers).usage
    assert result.as_numpy("num_input_tokens")[0] == usage.prompt_tokens


@check(CLIENT, "infer: options as parameters mean what tensors mean")
def infer_parameters(servers):
    client = client_of(servers)
    sampled = [tensor("text_input", [PROMPT.encode()], "BYTES"),
               tensor("max_tokens", [TOKENS], "INT64"), tensor("seed", [5], "UINT64"),
               tensor("temperature", [1.0], "FP32"), tensor("top_k", [50], "INT32")]
    as_parameters = client.infer(MODEL_NAME, sampled[:1], parameters={
        "max_tokens": TOKENS, "seed": 5, "temperature": 1, "top_k": 50})
    assert text_of(client.infer(MODEL_NAME, sampled)) == text_of(as_parameters)


@check(CLIENT, "infer: the inputs of a client of Triton's vLLM backend")
def infer_vllm(servers):
    sampling = json.dumps({"temperature": "0", "top_p": "0.95", "max_tokens": TOKENS,
                           "ignore_eos": True})
    for exclude, before in ((True, ""), (False, PROMPT)):
        result = client_of(servers).infer(MODEL_NAME, [
            tensor("text_input", [PROMPT.encode()], "BYTES"), tensor("stream", [False], "BOOL"),
            tensor("sampling_parameters", [sampling.encode()], "BYTES"),
            tensor("exclude_input_in_output", [exclude], "BOOL")])
        assert text_of(result) == before + expected_text(servers)


@check(CLIENT, "infer: token ids in and out, stop strings")
def infer_ids(servers):
    client = client_of(servers)
    first = client.infer(MODEL_NAME, inputs(), outputs=outputs("output_ids", "text_output"))
    ids = [2, *(int(i) for i in first.as_numpy("output_ids"))]
    for datatype in ("INT32", "INT64"):
        result = client.infer(MODEL_NAME, [
            tensor("input_ids", ids, datatype), *inputs()[1:]],
            outputs=outputs("num_input_tokens"))
        assert result.as_numpy("num_input_tokens")[0] == len(ids)
    text = text_of(first)
    stop = text[len(text) // 2:][:2]
    stopped = client.infer(MODEL_NAME, [*inputs(), tensor("stop", [stop.encode(), b"@@@@"],
                                                          "BYTES")],
                           outputs=outputs("text_output", "finish_reason"))
    assert text_of(stopped) == text[:text.index(stop)]
    assert stopped.as_numpy("finish_reason")[0] == b"stop"


@check(CLIENT, "infer: typed contents, by the client's own stub")
def infer_typed(servers):
    request = service_pb2.ModelInferRequest(model_name=MODEL_NAME, id="9")
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1]
                       ).contents.bytes_contents.append(PROMPT.encode())
    request.inputs.add(name="max_tokens", datatype="INT32", shape=[1]
                       ).contents.int_contents.append(TOKENS)
    request.parameters["ignore_eos"].bool_param = True
    with grpc.insecure_channel(servers.endpoint) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert not response.raw_output_contents
    (text,) = response.outputs[0].contents.bytes_contents
    assert text.decode() == expected_text(servers)


@check(CLIENT, "infer: asynchronous, 8 at once, and one that is cancelled")
def infer_async(servers):
    client = client_of(servers)
    done = queue.Queue()

    def callback(result, error):
        done.put((result, error))

    for number in range(8):
        client.async_infer(MODEL_NAME, inputs(), callback=callback, request_id=str(number))
    answers = [done.get(timeout=60) for _ in range(8)]
    assert all(error is None for _, error in answers)
    assert {result.get_response().id for result, _ in answers} == set("01234567")
    assert len({text_of(result) for result, _ in answers}) == 1
    client.async_infer(MODEL_NAME, inputs(tokens=2000), callback=callback).cancel()
    _, error = done.get(timeout=60)
    assert error.status() == "StatusCode.CANCELLED"


@check(CLIENT, "infer: the asyncio client")
def infer_asyncio(servers):
    async def ask():
        async with triton_aio.InferenceServerClient(servers.endpoint) as client:
            assert await client.is_server_ready()
            return text_of(await client.infer(MODEL_NAME, inputs(kind=triton_aio)))
    assert asyncio.run(ask()) == expected_text(servers)


@check(CLIENT, "infer: timeouts of client and server")
def infer_timeouts(servers):
    client = client_of(servers)
    long = inputs(tokens=2000)
    before = failures(client)
    refusal("DEADLINE_EXCEEDED", client.infer, MODEL_NAME, long, client_timeout=0.005)
    refusal("DEADLINE_EXCEEDED", client.infer, MODEL_NAME, long, timeout=1000)
    wait_for(lambda: failures(client) > before, "the generations to end")


@check(CLIENT, "stream: pieces are the whole text, the last is marked")
def stream(servers):
    with Stream(servers) as found:
        found.send("1", inputs(stream=True), outputs=outputs("text_output", "finish_reason"))
        results = found.answer()
        assert len(results) > 2
        assert "".join(text_of(result) for result in results) == expected_text(servers)
        assert results[-1].as_numpy("finish_reason")[0] == b"length"
        assert {result.get_response().id for result in results} == {"1"}


@check(CLIENT, "stream: an empty final response if it is enabled")
def stream_empty_final(servers):
    with Stream(servers) as found:
        found.send("1", inputs(stream=True), enable_empty_final_response=True)
        *parts, last = found.answer()
        assert not last.get_response().outputs and last.get_response().id == "1"
        assert "".join(text_of(part) for part in parts) == expected_text(servers)


@check(CLIENT, "stream: an answer that is not streamed is one response")
def stream_whole(servers):
    with Stream(servers) as found:
        found.send("1", inputs())
        (result,) = found.answer()
        assert text_of(result) == expected_text(servers)


@check(CLIENT, "stream: 6 requests side by side, told apart by id")
def stream_many(servers):
    text = expected_text(servers)
    texts = {}
    finals = set()
    with Stream(servers) as found:
        for number in range(6):
            found.send(str(number), inputs(stream=True))
        while len(finals) < 6:
            result, error = found.next()
            assert error is None, error
            name = result.get_response().id
            assert name not in finals
            texts[name] = texts.get(name, "") + text_of(result)
            if is_final(result):
                finals.add(name)
    assert texts == {str(number): text for number in range(6)}


@check(CLIENT, "stream: an error names its request and ends no other")
def stream_errors(servers):
    with Stream(servers) as found:
        found.send("bad", [tensor("text_input", [1.0], "FP32")])
        result, error = found.next()
        assert result is None and "text_input" in error.message()
        found.client.async_stream_infer("other", inputs(), request_id="other")
        result, error = found.next()
        assert result is None and "other" in error.message()
        found.send("good", inputs())
        (result,) = found.answer()
        assert text_of(result) == expected_text(servers)


@check(CLIENT, "stream: cancelling it ends its requests")
def stream_cancel(servers):
    client = client_of(servers)
    before = failures(client)
    found = Stream(servers)
    # Some wait for others to end, so not all can have an answer.
    for number in range(16):
        found.send(str(number), inputs(tokens=2000, stream=True))
    found.next()
    found.client.stop_stream(cancel_requests=True)
    wait_for(lambda: failures(client) > before, "the generations to end")
    assert text_of(client.infer(MODEL_NAME, inputs())) == expected_text(servers)


@check(CLIENT, "stream: its timeout ends it")
def stream_timeout(servers):
    found = Stream(servers, stream_timeout=0.2)
    found.send("1", inputs(tokens=2000, stream=True))
    while True:
        _, error = found.next()
        if error is not None:
            break
    assert error.status() == "StatusCode.DEADLINE_EXCEEDED" or "deadline" in error.message()
    found.client.stop_stream(cancel_requests=True)


@check(CLIENT, "errors: tensors that are not what they say, unknown names")
def errors(servers):
    client = client_of(servers)
    good = inputs()

    def refused(named, *args, **options):
        message = refusal("INVALID_ARGUMENT", client.infer, *args, **options)
        assert named in message, message

    refused("text_input", MODEL_NAME, [tensor("text_input", [1.0], "FP32")])
    refused("text_input", MODEL_NAME, [tensor("text_input", [b"a", b"b"], "BYTES")])
    refused("text_input", MODEL_NAME, good[1:])
    refused("prompt", MODEL_NAME, [*good, tensor("prompt", [b"a"], "BYTES")])
    refused("max_tokens", MODEL_NAME, [*good, good[1]])
    refused("logits", MODEL_NAME, good, outputs=outputs("logits"))
    refused("priority", MODEL_NAME, good, priority=3)
    refused("sequence_", MODEL_NAME, good, sequence_id=3)
    refused("temperature", MODEL_NAME, good, parameters={"temperature": 11})
    refused("stream", MODEL_NAME, inputs(stream=True))
    refused("context", MODEL_NAME, inputs("a b c d " * 2000))
    refusal("NOT_FOUND", client.infer, "other", good)
    refusal("NOT_FOUND", client.infer, MODEL_NAME, good, model_version="2")
    assert text_of(client.infer(MODEL_NAME, good)) == expected_text(servers)


def failures(client):
    (stats,) = client.get_inference_statistics(MODEL_NAME).model_stats
    return stats.inference_stats.fail.count


@check(CLIENT, "statistics count what succeeded and what failed")
def statistics(servers):
    client = client_of(servers)

    def counts():
        (stats,) = client.get_inference_statistics(MODEL_NAME).model_stats
        return stats.inference_count, stats.inference_stats

    before, _ = counts()
    failed = failures(client)
    client.infer(MODEL_NAME, inputs())
    refusal("INVALID_ARGUMENT", client.infer, MODEL_NAME, inputs()[1:])
    after, stats = counts()
    assert after == before + 1 and stats.fail.count == failed + 1
    assert stats.compute_infer.ns > 0 and stats.success.ns >= stats.compute_infer.ns
