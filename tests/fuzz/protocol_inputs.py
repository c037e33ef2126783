"""Hostile requests over gRPC and HTTP, all of them from a seed."""

import json
import math
import struct

BYTES_MAX = 1 << 16
EDGES = [0, 1, -1, 2, 7, 8, 20, 64, 127, 128, 255, 256, 1024, 8192, 1 << 15, 1 << 16,
         (1 << 31) - 1, -(1 << 31), 1 << 31, (1 << 32) - 1, (1 << 53) + 1,
         (1 << 63) - 1, -(1 << 63), (1 << 64) - 1]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, 1e-8, 100.0, 1e38, -1e38, math.inf, -math.inf,
          math.nan]
TEXTS = ["", "a", "Hello, world", "<start_of_turn>user\n", "<eos>", "\0", "\ud7ff\ue000",
         "é€😀", "a" * 5000, "x " * 3000, "{", "[[[[", "\"", "\\u0000", "%n%s",
         "http_request", "../../etc/passwd", "(a+)+$", "[^", "(?=a)", "\r\n\r\n"]


def mutated(source, data):
    """Bytes with some of them changed, taken away, doubled, or put in."""
    data = bytearray(data)
    for _ in range(source.choice([1, 1, 2, 4, 16])):
        kind = source.randrange(6)
        at = source.randrange(len(data) + 1)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            data[at:at] = source.randbytes(source.choice([1, 1, 4, 64]))
        elif kind == 2:
            del data[at:at + source.choice([1, 2, 8, 100])]
        elif kind == 3:
            data[at:at] = data[at:at + source.choice([1, 8, 100])] * source.choice([1, 2, 30])
        elif kind == 4 and at < len(data):
            data[at] = source.choice([0, 0x7f, 0x80, 0xff, ord('"'), ord("{"), ord("\n")])
        else:
            data[at:at + 8] = struct.pack("<q", source.choice(EDGES) & ((1 << 63) - 1))
    return bytes(data[:BYTES_MAX])


def scalar(source, field):
    kinds = type(field)
    if field.cpp_type in (kinds.CPPTYPE_FLOAT, kinds.CPPTYPE_DOUBLE):
        return source.choice(FLOATS)
    if field.cpp_type == kinds.CPPTYPE_BOOL:
        return source.random() < 0.5
    if field.cpp_type == kinds.CPPTYPE_ENUM:
        return source.choice(field.enum_type.values).number
    if field.type == kinds.TYPE_BYTES:
        return source.randbytes(source.choice([0, 1, 16, 300]))
    if field.cpp_type == kinds.CPPTYPE_STRING:
        return source.choice(TEXTS)
    bits = 32 if field.cpp_type in (kinds.CPPTYPE_INT32, kinds.CPPTYPE_UINT32) else 64
    if field.cpp_type in (kinds.CPPTYPE_UINT32, kinds.CPPTYPE_UINT64):
        return source.choice(EDGES) & ((1 << bits) - 1)
    value = source.choice([*EDGES, *range(300)]) & ((1 << bits) - 1)
    return value - (1 << bits) if value >> (bits - 1) else value


TENSORS = {"text_input": "BYTES", "input_ids": "INT64", "max_tokens": "INT32",
           "temperature": "FP32", "top_p": "FP32", "top_k": "INT32", "seed": "UINT64",
           "stop": "BYTES", "stream": "BOOL", "ignore_eos": "BOOL",
           "sampling_parameters": "BYTES", "exclude_input_in_output": "BOOL"}
TENSOR_BYTES = [b"\2\0\0\0ab", b"\2\0\0\0a", b"\xff\xff\xff\x7fa", b"\1", b"\2\0\0\0",
                b"\2\0\0\0\0\0\0\0", b"\xff" * 8, b""]


def fill_inference(source, message, model_name):
    """Makes a ModelInferRequest that is nearly right."""
    message.model_name, message.id = model_name, source.choice(TEXTS[:4])
    raw = source.random() < 0.5
    names = ["text_input", *source.sample(list(TENSORS), source.choice([0, 1, 2, 4]))]
    for name in names[source.choice([0, 0, 0, 1]):]:
        tensor = message.inputs.add(name=name, datatype=source.choice(
            [TENSORS[name]] * 8 + list(TENSORS.values())))
        tensor.shape.extend(source.choice([[1]] * 6 + [[1, 1], [], [0], [-1], [3], [1 << 62, 4]]))
        if raw:
            message.raw_input_contents.append(source.choice(TENSOR_BYTES))
        else:
            contents = tensor.contents
            contents.bytes_contents.append(source.choice(TEXTS).encode())
            if source.random() < 0.7 and tensor.datatype != "BYTES":
                del contents.bytes_contents[:]
            for field in ("bool_contents", "int_contents", "int64_contents", "uint64_contents",
                          "fp32_contents"):
                if source.random() < 0.4:
                    getattr(contents, field).append(source.choice([0, 1]))
    if source.random() < 0.5:
        message.parameters["max_tokens"].int64_param = source.choice([1, 3, 8, -1, 1 << 40])
    for name in ("text_output", "output_ids", "output_log_probs", "finish_reason", "nothing"):
        if source.random() < 0.2:
            message.outputs.add(name=name)


def fill(source, message, depth=0):
    """Sets some fields of a protobuf message to values at the edges of what there is
    and beyond what makes sense."""
    for field in message.DESCRIPTOR.fields:
        if source.random() < 0.45:
            continue
        repeated = field.is_repeated if hasattr(field, "is_repeated") else (
            field.label == field.LABEL_REPEATED)
        target = getattr(message, field.name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            value = field.message_type.fields_by_name["value"]
            if value.message_type is None:
                for _ in range(source.choice([1, 3, 2000])):
                    target[scalar(source, field.message_type.fields_by_name["key"])] = (
                        scalar(source, value))
        elif field.message_type:
            if depth < 4:
                for _ in range(source.choice([0, 1, 5]) if repeated else 1):
                    fill(source, target.add() if repeated else target, depth + 1)
                if not repeated:
                    target.SetInParent()
        elif repeated:
            count = source.choice([0, 1, 2, 17, 100, 3000])
            target.extend(scalar(source, field) for _ in range(count))
        else:
            setattr(message, field.name, scalar(source, field))
    return message


COMPLETION = {"model": "gemma", "prompt": "Hello", "max_tokens": 4, "temperature": 0}
CHAT = {"model": "gemma", "max_tokens": 4,
        "messages": [{"role": "user", "content": "Hello"}]}
FIELDS = ["n", "stream", "stop", "seed", "top_p", "top_k", "min_p", "logprobs", "top_logprobs",
          "max_tokens", "max_completion_tokens", "temperature", "presence_penalty",
          "frequency_penalty", "repetition_penalty", "logit_bias", "response_format", "tools",
          "tool_choice", "stream_options", "chat_template_kwargs", "user", "ignore_eos", "prompt",
          "messages", "model", "echo", "suffix", "priority", "guided_json", "structured_outputs"]


def json_value(source, depth=0):
    kind = source.randrange(8 if depth < 4 else 5)
    if kind == 0:
        return source.choice([None, True, False])
    if kind == 1:
        return source.choice(EDGES)
    if kind == 2:
        return source.choice([value for value in FLOATS if math.isfinite(value)])
    if kind < 5:
        return source.choice(TEXTS)
    if kind < 7:
        return [json_value(source, depth + 1) for _ in range(source.choice([0, 1, 3, 40]))]
    keys = [*FIELDS, "role", "content", "type", "text", "function", "name", "parameters", "schema"]
    return {source.choice(keys): json_value(source, depth + 1)
            for _ in range(source.choice([0, 1, 4]))}


def json_body(source):
    """A body that is nearly right, in bytes."""
    body = dict(source.choice([COMPLETION, CHAT]))
    if source.random() < 0.4:
        body["stream"] = True
    if source.random() < 0.2:
        body["max_tokens"] = 900
    for _ in range(source.choice([0, 0, 1, 1, 2, 5])):
        body[source.choice(FIELDS)] = json_value(source)
    data = json.dumps(body, ensure_ascii=source.random() < 0.5).encode("utf-8", "surrogatepass")
    if source.random() < 0.05:
        return b"[" * source.choice([100, 20000])
    return mutated(source, data) if source.random() < 0.2 else data


PATHS = ["/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/models/gemma", "/health",
         "/metrics", "/", "/%00", "/v1/../v1/models", "/v1/models/" + "a" * 3000, "*", "//"]
METHODS = [*["POST"] * 60, "GET", "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "G\0T",
           "post"]


def chunked(source, body):
    """The body in chunks, in one of three with a size that is not that of the chunk."""
    parts = []
    while body:
        count = source.choice([1, 7, 100, 5000])
        size = b"%x" % len(body[:count])
        if source.random() < 0.05:
            size = source.choice([b"-1", b"ffffffffffffffff", b"zz", b"", b"7fffffff", b"1" * 40])
        parts.append(size + source.choice([b"", b"", b";a=b"]) + b"\r\n" + body[:count] + b"\r\n")
        body = body[count:]
    return b"".join(parts) + b"0\r\n" + source.choice([b"", b"X: y\r\n"]) + b"\r\n"


def headers(source, length):
    lines = ["Host: localhost", "Content-Type: application/json"]
    if source.random() < 0.2:
        lines.append(f"X-{source.randrange(9)}: " + "v" * source.choice([10, 4000, 40000]))
    if source.random() < 0.1:
        lines += [f"X-{i}: {i}" for i in range(source.choice([50, 1500]))]
    if source.random() < 0.1:
        lines.append(source.choice([
            "Authorization: Bearer " + "k" * 5000, "Expect: 100-continue", "Upgrade: h2c",
            "Content-Encoding: gzip", "Accept-Encoding: gzip, br", "Connection: close",
            "no colon here", ": no name", "Content-Length: 5", "Range: bytes=0-"]))
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    else:
        lines.append(f"Content-Length: {length}")
    return lines


def http_request(source):
    """Bytes of one request, and whether it is whole, so that an answer and the end of
    the connection are due."""
    method, path = source.choice(METHODS), source.choice([*PATHS[:2] * 12, *PATHS])
    body = json_body(source) if method in ("POST", "PUT") else b""
    whole, length = True, len(body)
    if source.random() < 0.15:
        body, length = chunked(source, body), None
        whole = False
    elif source.random() < 0.1:
        length = source.choice([0, len(body) + 100, len(body) // 2, -1, 1 << 40, "x"])
        whole = False
    lines = headers(source, length) + (["Connection: close"] if whole else [])
    head = f"{method} {path} HTTP/1.1\r\n" + "\r\n".join(lines) + "\r\n\r\n"
    data = head.encode("latin-1", "replace") + body
    if source.random() < 0.1:
        return mutated(source, data), False
    return data, whole
