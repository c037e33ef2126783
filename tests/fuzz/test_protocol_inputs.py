"""The hostile requests of tests/evidence/fuzz_protocols."""

import json
import os
import random
import sys

from google.protobuf import descriptor_pb2

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import protocol_inputs as inputs


def test_the_same_seed_makes_the_same_requests():
    make = lambda seed: [inputs.http_request(random.Random(seed + i)) for i in range(50)]
    assert make(1) == make(1)
    assert make(1) != make(2)


def test_messages_are_filled_with_every_kind_of_field():
    source = random.Random(3)
    filled = set()
    for _ in range(200):
        message = inputs.fill(source, descriptor_pb2.FieldDescriptorProto())
        message.SerializePartialToString()
        filled |= {field.name for field, _ in message.ListFields()}
    expected = {field.name for field in descriptor_pb2.FieldDescriptorProto.DESCRIPTOR.fields}
    assert filled == expected


def test_requests_for_inference_are_messages():
    from tritonclient.grpc import service_pb2

    source, named = random.Random(8), set()
    for _ in range(300):
        message = service_pb2.ModelInferRequest()
        inputs.fill_inference(source, message, "m")
        assert service_pb2.ModelInferRequest.FromString(message.SerializeToString()) == message
        named |= {tensor.name for tensor in message.inputs}
    assert named == set(inputs.TENSORS)


def test_bodies_are_json_more_often_than_not():
    source = random.Random(4)
    good = 0
    for _ in range(400):
        try:
            json.loads(inputs.json_body(source))
            good += 1
        except (ValueError, RecursionError):
            pass
    assert 200 < good < 400


def test_chunks_of_a_right_size_join_to_the_body():
    class Honest(random.Random):
        def random(self):
            return 0.9

    rest, joined = inputs.chunked(Honest(5), b"abc" * 5000), b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size.split(b";")[0], 16)
        if count == 0:
            break
        joined, rest = joined + rest[:count], rest[count + 2:]
    assert joined == b"abc" * 5000


def test_whole_requests_tell_their_length():
    source, whole = random.Random(6), 0
    for _ in range(300):
        data, is_whole = inputs.http_request(source)
        if not is_whole:
            continue
        whole += 1
        head, _, body = data.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
    assert whole > 100
