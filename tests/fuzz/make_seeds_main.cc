// Writes the seeds of the corpus: FOLDER/TARGET/seed_*. Same code, same bytes.
//
//   bazel run //tests/fuzz:make_seeds -- $PWD/tests/fuzz/corpus
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "proto/open_inference/grpc_predict_v2.pb.h"
#include "services/model/gguf_reader.h"
#include "services/model/gguf_test_file.h"
#include "services/model/hf_model_config.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/sentencepiece_model.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

namespace onegrid::fuzz {
namespace {

using Seeds = std::vector<std::pair<std::string, std::string>>;

std::string Marked(const std::vector<std::string>& files) {
  return absl::StrJoin(files, kFileMark);
}

// Values in values.
std::string Nested(int depth) {
  return std::string(depth, '[') + std::string(depth, ']');
}

// `text` with the number behind `key` replaced.
std::string With(std::string text, const std::string& key,
                 const std::string& number) {
  const size_t at = text.find(':', text.find(key)) + 1;
  return text.replace(at, text.find_first_of(",}\n", at) - at, number);
}

std::string TinyTokenizerJson() {
  const auto file = model::GgufFile::Open(Put("seed.gguf", TinyGguf()));
  return model::HfTokenizerFiles(**file)->at("tokenizer.json");
}

// Inputs that once went wrong.
Seeds FoundSeeds() {
  const std::string no_tensors("\x02\0\0\0\0\0\0\0{}", 10);
  return {
      // A vocabulary filled up to rows that no embedding has: 671 MB.
      {"hf_folder/found_vocab_size",
       Marked({With(TinyConfigJson(false), "vocab_size", "16777216"), "",
               no_tensors, "", ""})},
      // An overflow in counting the groups of a row.
      {"hf_folder/found_group_size",
       Marked({With(TinyConfigJson(true), "group_size", "9223372036854775807"),
               "", TinySafetensors(true), "", ""})},
      // A key that is a map, of which no text could be made.
      {"pipeline_file/found_key", "? {a: b}\n: c\n"},
      // A rank of 0, by which alpha was divided.
      {"adapter/found_rank",
       Marked({R"({"r": 0, "lora_alpha": 8})", TinyAdapter(0)})},
  };
}

Seeds FileSeeds() {
  const std::string config = TinyConfigJson(false);
  const std::string scale =
      R"("rope_scaling": {"type": "linear", "factor": 8})";
  const std::string old_config = absl::StrCat(
      R"({"architectures": ["Gemma3ForCausalLM"], "vocab_size": 300,
 "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
 "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
 "sliding_window": 4, "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
 "rope_theta": 1e6, "rope_local_base_freq": 1e4, "sliding_window_pattern": 2,
 "query_pre_attn_scalar": 16, "eos_token_id": [1, 106], )",
      scale, "}");
  const std::string index =
      R"({"weight_map": {"a": "model.safetensors", "b": "b.safetensors"}})";
  const std::string tokens = R"({"added_tokens_decoder": {
 "0": {"content": "<pad>", "special": true}, "7": {"content": "\n\n"},
 "290": {"content": "<unused0>"}}, "chat_template": "{{ bos_token }}"})";
  return {
      {"gguf/seed_model", TinyGguf()},
      {"gguf/seed_every_type", EveryTypeGguf()},
      {"gguf_shards/seed_two", Marked(TinyShards())},
      {"safetensors/seed_packed", TinySafetensors(true).substr(0, 4096)},
      {"safetensors/seed_adapter", TinyAdapter(2)},
      {"safetensors/seed_probe", TinyProbe()},
      {"hf_folder/seed_float",
       Marked({config, "", TinySafetensors(false), "", tokens})},
      {"hf_folder/seed_packed",
       Marked({TinyConfigJson(true), "", TinySafetensors(true), "", ""})},
      {"hf_folder/seed_mobile",
       Marked({TinyMobileConfigJson(), "", TinyMobileSafetensors(), "", ""})},
      {"hf_folder/seed_shards",
       Marked({config, index, TinyAdapter(2), TinyAdapter(2), ""})},
      {"hf_config/seed_new", config},
      {"hf_config/seed_old", old_config},
      {"hf_config/seed_nested",
       absl::StrCat(R"({"architectures":)", Nested(2000), "}")},
      {"hf_vocabulary/seed_tokens", Marked({tokens, "{{ messages }}"})},
      {"tokenizer_json/seed_tokens", TinyTokenizerJson()},
      {"sentencepiece/seed_tokens",
       model::SerializeModelProto(TinyVocabulary())},
      {"folded_checkpoint/seed_grids", TinyFolded()},
      {"adapter/seed_one", Marked({R"({"r": 2, "lora_alpha": 8, "bias": "none",
 "use_dora": false, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {},
 "use_rslora": true})",
                                   TinyAdapter(2)})},
      {"adapter/seed_patterns",
       Marked({R"({"r": 4, "lora_alpha": 8, "init_lora_weights": "gaussian",
 "rank_pattern": {"^model\\..*\\.\\d+.self_attn.q_proj$": 2},
 "alpha_pattern": {"layers.[0-9]+.*": 3}})",
               TinyAdapter(2)})},
      {"adapter/seed_gguf", Marked({"", TinyAdapterGguf()})},
  };
}

Seeds TextSeeds() {
  const std::string message = R"({"role": "user", "content": "a"}, )"
                              R"({"role": "assistant", "content": "b"})";
  return {
      {"quant_plan/seed_rules", R"(default: int4_g32
rules:
  - tensors: "blk.{0-17}.ffn_*.weight"
    grid: int2_g64
  - tensors: token_embd.weight
    grid: int8_g32
  - {tensors: q_proj, grid: int4_g32}
)"},
      {"dataset/seed_pair",
       "\x07{\"prompt\": \"caf\\u00e9\", \"completion\": \"b\"}\n"},
      {"dataset/seed_messages",
       absl::StrCat("\x09{\"messages\": [", message, "]}\n{\"messages\": []}")},
      {"dataset/seed_text", "\x02{\"text\": \"a b\"}\n\n{\"text\": \"c\"}\n"},
      {"dataset/seed_alpaca",
       "\x0b{\"instruction\": \"a\", \"input\": \"b\", \"output\": \"c\", "
       "\"system\": \"s\", \"history\": [[\"d\", \"e\"]]}\n"},
      {"dataset/seed_sharegpt",
       "\x0c{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, "
       "{\"from\": \"gpt\", \"value\": \"b\"}]}\n"},
      {"dataset/seed_chat_pair",
       "\x07{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], "
       "\"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}\n"},
      {"tokenizer/seed_text",
       "abc  a\n\n</s><end_of_turn><0x41> caf\u00e9 \u4e2d\u2581\xff\xe2\x96"},
      {"chat_template/seed_turns",
       Marked({"0be brief", "1a <end_of_turn>", "2b\n<start_of_turn>", "1c "})},
      {"openai_request/seed_chat",
       R"({"model": "m", "messages": [{"role": "system", "content": "s"},
 {"role": "user", "content": [{"type": "text", "text": "a"}]}], "n": 2,
 "stream": true, "stream_options": {"include_usage": true}, "stop": ["x"],
 "temperature": 0, "logprobs": true, "top_logprobs": 1, "seed": 7})"},
      {"openai_request/seed_tools",
       R"({"model": "m", "tools": [{"type": "function", "function": {
 "name": "f", "description": "d", "parameters": {"type": "object",
 "properties": {"a": {"type": "array", "items": {"type": "string"}},
 "b": {"type": "object", "properties": {}, "nullable": true}},
 "required": ["a"]}}}], "tool_choice": "auto", "messages": [
 {"role": "user", "content": "u"}, {"role": "assistant", "content": null,
 "reasoning_content": "t", "tool_calls": [{"id": "1", "type": "function",
 "function": {"name": "f", "arguments": "{\"a\": [1.5, null, true]}"}}]},
 {"role": "tool", "tool_call_id": "1", "content": "r"}],
 "chat_template_kwargs": {"enable_thinking": true}})"},
      {"chat_answer/seed_parts",
       "\x02<|channel>thought\na\n<channel|>b<|tool_call>call:f{a:<|\"|>c"
       "<|\"|>,d:[1,{e:true}],<|\"|>g<|\"|>:None}<tool_call|><|tool_call>"
       "call:g{"},
      {"openai_request/seed_completion",
       R"({"model": "m", "prompt": [[1, 2], "a"], "max_tokens": 8, "top_p": 0.9,
 "top_k": -1, "min_p": 0.1, "repetition_penalty": 1.1, "stop": "\n",
 "logprobs": 0, "ignore_eos": true, "suffix": null, "best_of": 1})"},
      {"openai_request/seed_steered",
       R"({"model": "m", "prompt": "a", "max_tokens": 0, "echo": true,
 "presence_penalty": -2, "frequency_penalty": 1.5, "logit_bias": {"5": -100,
 "7": 0.5}, "logprobs": 5, "stop_token_ids": [1, 2], "priority": -3,
 "user": "u", "safety_identifier": "i", "cache_salt": null})"},
      {"routes/seed_rules", R"(default_privacy: public
upstreams:
  - {name: big, base_url: "https://a.example/v1/", model: m, budget:
      {requests_per_minute: 6, tokens_per_day: 1000, cost_per_day: 2.5,
       prompt_cost_per_million: 1, completion_cost_per_million: 4},
     breaker: {failures: 3, open_ms: 1000}, request_timeout_ms: 900}
rules:
  - {name: code, when: {task: [a, b], prompt_characters_min: 1,
     prompt_tokens_max: 9, has_tools: true}, send: big}
  - {name: alias, when: {model: x, local_queued_min: 2}, send: local}
  - {name: unsure, escalate: {to: big, mean_logprob_below: -1.5}}
on_local_failure: big
)"},
      {"routes/seed_body",
       R"({"mod\u0065l": "m", "prompt": ["a", [1]], "n": 2, "metadata":
 {"task": "t", "privacy": "public"}, "messages": [{"role": "user",
 "content": [{"type": "text", "text": "\"model\":"}]}], "tools": [{}],
 "response_format": {"type": "json_object"}, "max_tokens": 1e2})"},
      {"pipeline_file/seed_sections", Marked({R"(name: run1
base_model: {id: gemma, path: model.gguf}
dataset: {id: d, train: t.jsonl, test: /abs/t.jsonl, format: text}
tune:
  mode: lr_qat
  rank: 8
  learning_rate: 0.002
  target_modules: [q_proj, {match: "layers.{0-5}.*", rank: 4}]
verify: {probe_tokens: 100, kl_served: 0.01}
evaluate: {base: true}
deploy: {id: served}
prompts: ["one"]
)",
                                              "tune.rank=4"})},
  };
}

// Requests for text and for token ids, in both encodings. At most one
// parameter each, for maps have no order on the wire.
Seeds ProtocolSeeds() {
  const auto input = [](const char* name, const char* datatype, int64_t size,
                        ::inference::ModelInferRequest* request) {
    auto* tensor = request->add_inputs();
    tensor->set_name(name);
    tensor->set_datatype(datatype);
    tensor->add_shape(size);
    return tensor->mutable_contents();
  };
  ::inference::ModelInferRequest typed;
  typed.set_id("1");
  input("text_input", "BYTES", 1, &typed)->add_bytes_contents("a");
  input("max_tokens", "INT32", 1, &typed)->add_int_contents(3);
  input("temperature", "FP32", 1, &typed)->add_fp32_contents(0.5);
  input("seed", "UINT64", 1, &typed)->add_uint64_contents(7);
  input("stream", "BOOL", 1, &typed)->add_bool_contents(true);
  (*typed.mutable_parameters())["timeout"].set_int64_param(1000);
  typed.add_outputs()->set_name("text_output");
  typed.add_outputs()->set_name("output_log_probs");

  ::inference::ModelInferRequest raw;
  raw.set_model_version("1");
  for (const auto& [name, datatype, bytes] :
       std::vector<std::array<std::string, 3>>{
           {"input_ids", "INT32", std::string("\2\0\0\0", 4)},
           {"top_p", "FP64", std::string("\0\0\0\0\0\0\xe0\x3f", 8)},
           {"stop", "BYTES", std::string("\1\0\0\0|", 5)}}) {
    auto* tensor = raw.add_inputs();
    tensor->set_name(name);
    tensor->set_datatype(datatype);
    tensor->add_shape(1);
    raw.add_raw_input_contents(bytes);
  }
  (*raw.mutable_parameters())["sampling_parameters"].set_string_param(
      R"({"temperature": "0.5", "stop": ["a", "b"], "seed": 7})");
  raw.add_outputs()->set_name("finish_reason");
  return {{"open_inference_request/seed_typed", typed.SerializeAsString()},
          {"open_inference_request/seed_raw", raw.SerializeAsString()}};
}

int Write(const std::string& folder) {
  for (const Seeds& seeds :
       {FileSeeds(), TextSeeds(), ProtocolSeeds(), FoundSeeds()}) {
    for (const auto& [name, bytes] : seeds) {
      const std::filesystem::path path = absl::StrCat(folder, "/", name);
      std::filesystem::create_directories(path.parent_path());
      std::ofstream(path, std::ios::binary) << bytes;
      std::printf("%6zu %s\n", bytes.size(), name.c_str());
    }
  }
  return 0;
}

}  // namespace
}  // namespace onegrid::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  return onegrid::fuzz::Write(argv[1]);
}
