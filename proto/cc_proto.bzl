"""C++ from protos, by the distribution's protoc and gRPC plugin."""

def cc_proto(name, srcs, grpc_srcs = [], imports = [], deps = [], **kwargs):
    """One cc_library with the messages and gRPC stubs of several .proto files.

    Args:
      name: the library.
      srcs: .proto files of this package that hold messages only.
      grpc_srcs: .proto files of this package that also hold services.
      imports: labels of the .proto files of other packages that they import.
      deps: cc_proto libraries of `imports`.
      **kwargs: given to the cc_library, visibility for instance.
    """
    protos = srcs + grpc_srcs
    bases = [p[:-len(".proto")] for p in protos]
    grpc_bases = [p[:-len(".proto")] for p in grpc_srcs]
    headers = ([b + ".pb.h" for b in bases] +
               [b + ".grpc.pb.h" for b in grpc_bases])
    sources = ([b + ".pb.cc" for b in bases] +
               [b + ".grpc.pb.cc" for b in grpc_bases])
    commands = ["protoc -I. --cpp_out=$(GENDIR) " +
                " ".join(["$(location %s)" % p for p in protos])]
    if grpc_srcs:
        commands.append(
            "protoc -I. --grpc_out=$(GENDIR) " +
            "--plugin=protoc-gen-grpc=$$(command -v grpc_cpp_plugin) " +
            " ".join(["$(location %s)" % p for p in grpc_srcs]),
        )
    native.genrule(
        name = name + "_generated",
        srcs = protos + imports,
        outs = headers + sources,
        cmd = " && ".join(commands),
    )
    native.cc_library(
        name = name,
        srcs = sources,
        hdrs = headers,
        # Generated code is half of a cold build at -O2 and never hot.
        copts = ["-O1"],
        deps = deps + ["@system//:grpc"],
        **kwargs
    )
