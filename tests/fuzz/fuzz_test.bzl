"""Fuzz functions, as tests of their corpus and as libFuzzer's programs."""

def fuzz_test(name, deps):
    """NAME_fuzz.cc, which defines LLVMFuzzerTestOneInput.

    In the ordinary build a test that replays corpus/NAME; with --config=fuzz
    the same target is libFuzzer's program. One macro, for the two ways to link
    it must not differ between targets.
    """
    native.cc_test(
        name = name,
        size = "small",
        srcs = [name + "_fuzz.cc"],
        args = ["tests/fuzz/corpus/" + name],
        data = native.glob(["corpus/" + name + "/*"]),
        linkopts = select({
            ":libfuzzer": ["-fsanitize=fuzzer"],
            "//conditions:default": [],
        }),
        deps = deps + [":fuzz_input"] + select({
            ":libfuzzer": [],
            "//conditions:default": [":replay_main"],
        }),
    )
