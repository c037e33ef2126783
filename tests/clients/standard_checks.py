"""grpcio's own clients of grpc.health.v1 and of reflection."""

import os
import signal
import subprocess
import tempfile
import threading

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase)
from tritonclient.grpc import service_pb2, service_pb2_grpc

from checks import MODEL_NAME, check, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
GENERATION = "onegrid.v1.GenerationService"
OPEN_INFERENCE = "inference.GRPCInferenceService"
FILES = {GENERATION: "proto/onegrid/v1/generation.proto",
         OPEN_INFERENCE: "proto/open_inference/grpc_predict_v2.proto"}
HEALTH_NAMES = ["", GENERATION, OPEN_INFERENCE, MODEL_NAME]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def compiled(path):
    """The FileDescriptorProto that protoc makes of one of our files."""
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run(["protoc", "-I", ROOT, f"--descriptor_set_out={out.name}", path],
                       cwd=ROOT, check=True)
        files = descriptor_pb2.FileDescriptorSet.FromString(out.read())
    (file,) = files.file
    return file


def messages_of(file):
    """All messages and enums of a file by name, nested ones too, without the
    names in JSON that protoc writes and servers leave out."""
    found = {enum.name: enum for enum in file.enum_type}

    def add(message, prefix):
        for field in message.field:
            field.ClearField("json_name")
        found[prefix + message.name] = message
        for nested in message.nested_type:
            add(nested, f"{prefix}{message.name}.")
        for enum in message.enum_type:
            found[f"{prefix}{message.name}.{enum.name}"] = enum

    for message in file.message_type:
        add(message, "")
    return found


@check("grpcio-health-checking", "Check: server, both services and the model by name")
def health(servers):
    with grpc.insecure_channel(servers.endpoint) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in HEALTH_NAMES:
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == SERVING, name
        try:
            stub.Check(health_pb2.HealthCheckRequest(service="other"))
            raise AssertionError("another service has a status")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND


@check("grpcio-health-checking", "Watch: SERVING, and NOT_SERVING as soon as SIGTERM comes")
def health_watch(servers):
    process, endpoint = servers.start_inference()
    seen = {name: [] for name in HEALTH_NAMES}
    first = threading.Barrier(len(HEALTH_NAMES) + 1)

    def watch(name, stub):
        try:
            for answer in stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=60):
                seen[name].append(answer.status)
                if len(seen[name]) == 1:
                    first.wait(timeout=60)
                else:
                    return
        except grpc.RpcError as error:
            seen[name].append(error.code())

    with grpc.insecure_channel(endpoint) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watchers = [threading.Thread(target=watch, args=(name, stub))
                    for name in HEALTH_NAMES]
        for watcher in watchers:
            watcher.start()
        first.wait(timeout=60)
        process.send_signal(signal.SIGTERM)
        for watcher in watchers:
            watcher.join()
    assert process.wait(60) == 0
    assert seen == {name: [SERVING, NOT_SERVING] for name in HEALTH_NAMES}, seen


def methods_of(channel, service):
    """Callables of a service's methods by name, made of what reflection says."""
    pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    calls = {}
    for method in pool.FindServiceByName(service).methods:
        make = channel.unary_stream if method.server_streaming else channel.unary_unary
        request = GetMessageClass(method.input_type)
        calls[method.name] = (request, make(
            f"/{service}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString))
    return calls


@check("grpcio-health-checking",
       "Drain: NOT_SERVING, no new request over either protocol, the stream goes on")
def drain(servers):
    process, endpoint = servers.start_inference("--allow_drain")
    with grpc.insecure_channel(endpoint) as channel:
        calls = methods_of(channel, GENERATION)
        health_stub = health_pb2_grpc.HealthStub(channel)

        def call(name, **fields):
            request, method = calls[name]
            return method(request(**fields), timeout=60)

        def refused(answer):
            try:
                list(answer())
            except grpc.RpcError as error:
                return error.code() == grpc.StatusCode.UNAVAILABLE
            return False

        def generate(tokens):
            return call("Generate", text="Once", stopping={"max_tokens": tokens,
                                                           "ignore_eos": True})

        stream = generate(200)
        assert next(stream).HasField("started")
        call("Drain")
        for name in HEALTH_NAMES:
            answer = health_stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == NOT_SERVING, name
        assert refused(lambda: generate(1))
        open_inference = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert not open_inference.ServerReady(service_pb2.ServerReadyRequest()).ready
        tensor = service_pb2.ModelInferRequest.InferInputTensor(
            name="text_input", datatype="BYTES", shape=[1])
        tensor.contents.bytes_contents.append(b"Once")
        request = service_pb2.ModelInferRequest(model_name=MODEL_NAME, inputs=[tensor])
        assert refused(lambda: [open_inference.ModelInfer(request)])
        assert refused(lambda: open_inference.ModelStreamInfer(iter([request])))
        last = list(stream)[-1]
        assert last.finished.completion_tokens == 200
        wait_for(lambda: call("GetLoad").running == 0, "the slot to be free")
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@check("grpcio-reflection", "lists both services with all methods and messages")
def reflection(servers):
    with grpc.insecure_channel(servers.endpoint) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = database.get_services()
        assert {GENERATION, OPEN_INFERENCE, "grpc.health.v1.Health"} <= set(services)
        for name, path in FILES.items():
            expected = compiled(path)
            found = database.FindFileContainingSymbol(name)
            assert found.service == expected.service, name
            assert messages_of(found) == messages_of(expected), name


@check("grpcio-reflection", "a call made of nothing but what reflection says")
def reflection_call(servers):
    with grpc.insecure_channel(servers.endpoint) as channel:
        request, call = methods_of(channel, OPEN_INFERENCE)["ModelReady"]
        assert call(request(name=MODEL_NAME)).ready


def field_key(field):
    return (field.name, field.number, field.type, field.label, field.type_name,
            field.HasField("oneof_index"))


@check("tritonclient", "our protocol file: every name, number and type is the client's")
def descriptors(_servers):
    ours = compiled(FILES[OPEN_INFERENCE])
    theirs = descriptor_pb2.FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs)
    theirs_messages = messages_of(theirs)
    for dependency in service_pb2.DESCRIPTOR.dependencies:
        file = descriptor_pb2.FileDescriptorProto()
        dependency.CopyToProto(file)
        theirs_messages.update(messages_of(file))
    assert ours.package == theirs.package
    methods = {m.name: m for m in theirs.service[0].method}
    assert ours.service[0].name == theirs.service[0].name
    for method in ours.service[0].method:
        other = methods[method.name]
        for key in ("input_type", "output_type", "client_streaming", "server_streaming"):
            assert getattr(method, key) == getattr(other, key), (method.name, key)
    for name, message in messages_of(ours).items():
        other = theirs_messages[name]
        if isinstance(message, descriptor_pb2.EnumDescriptorProto):
            assert list(message.value) == list(other.value), name
            continue
        fields = {field_key(field) for field in other.field}
        missing = {field_key(field) for field in message.field} - fields
        assert not missing, (name, missing)
        # A request that leaves a field out would drop what a client said.
        if name.startswith("ModelInfer") or name.startswith("Infer") and (
                name != "InferStatistics"):
            assert len(message.field) == len(other.field), name
