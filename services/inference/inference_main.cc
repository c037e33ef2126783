// Serves one Gemma 3 GGUF over gRPC.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "services/common/byte_size.h"
#include "services/common/error_info.h"
#include "services/common/log.h"
#include "services/common/server.h"
#include "services/common/thread_count.h"
#include "services/inference/generation_grpc.h"
#include "services/inference/model_slot.h"
#include "services/inference/open_inference_grpc.h"
#include "services/inference/open_inference_service.h"
#include "services/inference/served_model.h"
#include "services/inference/vocabulary_grpc.h"

ABSL_FLAG(std::string, model, "", "GGUF file to serve.");
ABSL_FLAG(std::string, model_name, "",
          "What callers of the Open Inference Protocol and of the health check "
          "name the model by; empty takes the name in the file, or that of the "
          "file if it has none.");
ABSL_FLAG(std::string, artifact_sha256, "",
          "Refuse to serve unless the file's SHA-256 is this one.");
ABSL_FLAG(std::string, host, "127.0.0.1", "Address to listen on.");
ABSL_FLAG(int, port, 0, "Port to listen on; 0 picks a free one.");
ABSL_FLAG(std::string, port_file, "",
          "File to write host:port to once serving.");
ABSL_FLAG(std::string, activations, "int8",
          "Precision of the linears' inputs: int8 or f32.");
ABSL_FLAG(std::string, kv_cache, "int8",
          "Precision of keys and values: int8, bf16 or f32.");
ABSL_FLAG(std::string, isa, "auto",
          "Instruction set: auto, amx_int8, avx512_vnni, avx2_vnni, avx2 or "
          "reference.");
ABSL_FLAG(std::string, chat_format, "auto",
          "How the gateway is to write conversations for the model: gemma3, "
          "gemma4, gemma4-empty-thought, gemma4-second, "
          "gemma4-second-empty-thought, gemma4-first or "
          "gemma4-first-empty-thought; auto goes by the chat template in the "
          "file.");
ABSL_FLAG(bool, allow_degraded, false,
          "If the asked-for instruction set is missing, use the best one "
          "there is and say so in GetServerInfo, instead of not starting.");
ABSL_FLAG(std::string, prompt_lookup, "auto",
          "Run guesses of the next tokens ahead, taken from what the sequence "
          "said before: auto (where it is faster), always or off. The output "
          "is the same.");
ABSL_FLAG(bool, head_sketch, true,
          "Split an 8-bit output head into halves of 4 bits, and read the "
          "upper one in place of most of the head where greedy or top-k "
          "sampling wants few logits, once it is learnt from the first tokens "
          "what they leave out. The output is the same; takes some 8 % of the "
          "head's memory more.");
ABSL_FLAG(int, threads, 0,
          "Threads to compute with; 0 takes all this process may use.");
ABSL_FLAG(int, max_sequences, 8, "Requests computed at once.");
ABSL_FLAG(int, max_queue, 64, "Requests that may wait; more are refused.");
ABSL_FLAG(absl::Duration, max_queue_delay, absl::Milliseconds(1500),
          "How long a request may wait for its turn while more than calm_queue "
          "do; then it is refused like one that finds the queue full, so that "
          "under overload those who are answered do not wait long. inf: until "
          "its deadline.");
ABSL_FLAG(int, calm_queue, 32,
          "So many requests may wait for as long as it takes. 0, with a short "
          "max_queue_delay, bounds the time to the first token of all that is "
          "answered.");
ABSL_FLAG(int, max_context, 8192, "Most tokens of one sequence.");
ABSL_FLAG(int, max_step_tokens, 512,
          "Most tokens computed in one step over all requests.");
ABSL_FLAG(int, max_shared_step_tokens, 256,
          "The same of a step in which a request generates: the fewer, the "
          "sooner its next token comes while others' prompts are read.");
ABSL_FLAG(std::string, prefix_cache, "256MB",
          "Keys and values kept for later requests that begin with the same "
          "tokens: at most this many bytes, e.g. 256MB or 2GB; 0 keeps none.");
ABSL_FLAG(std::string, model_dir, "",
          "Folder from which LoadModel may take another model; without it the "
          "model stays.");
ABSL_FLAG(std::vector<std::string>, adapters, {},
          "LoRA adapters that requests may name, NAME=PATH[,NAME=PATH...]: "
          "PEFT's folders or llama.cpp's GGUFs for this model.");
ABSL_FLAG(std::string, adapter_dir, "",
          "Folder from which LoadAdapter may load more; without it adapters "
          "stay as they were at the start.");
ABSL_FLAG(int, max_adapters, 16, "Adapters loaded at once.");
ABSL_FLAG(std::string, kv_budget, "auto",
          "Most bytes of all keys and values, kept ones included, e.g. 2GB. "
          "Where they are short, kept ones are given up, then requests wait "
          "and run again from their tokens. A request that may grow beyond it "
          "is refused, so a small one goes with a small max_context. auto: as "
          "much as max_sequences requests of max_context tokens and "
          "prefix_cache can take.");
ABSL_FLAG(bool, allow_drain, false,
          "Let callers of the Drain RPC end the taking of requests.");
ABSL_FLAG(int, drain_seconds, 20,
          "On SIGTERM, how long calls in progress may go on.");

namespace onegrid::inference {
namespace {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "inference: %s\n",
               std::string(status.message()).c_str());
  return 1;
}

absl::StatusOr<ServedModelOptions> OptionsFromFlags() {
  ServedModelOptions options;
  options.model_path = absl::GetFlag(FLAGS_model);
  options.model_name = absl::GetFlag(FLAGS_model_name);
  options.artifact_sha256 = absl::GetFlag(FLAGS_artifact_sha256);
  options.activations = absl::GetFlag(FLAGS_activations);
  options.kv_cache = absl::GetFlag(FLAGS_kv_cache);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.prompt_lookup = absl::GetFlag(FLAGS_prompt_lookup);
  options.head_sketch = absl::GetFlag(FLAGS_head_sketch);
  options.chat_format = absl::GetFlag(FLAGS_chat_format);
  options.allow_degraded = absl::GetFlag(FLAGS_allow_degraded);
  options.threads = common::ChooseThreadCount(absl::GetFlag(FLAGS_threads));
  options.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  options.max_queue = absl::GetFlag(FLAGS_max_queue);
  options.max_queue_delay = absl::GetFlag(FLAGS_max_queue_delay);
  options.calm_queue = absl::GetFlag(FLAGS_calm_queue);
  options.max_context = absl::GetFlag(FLAGS_max_context);
  options.max_step_tokens = absl::GetFlag(FLAGS_max_step_tokens);
  options.max_shared_step_tokens = absl::GetFlag(FLAGS_max_shared_step_tokens);
  options.adapters = absl::GetFlag(FLAGS_adapters);
  options.adapter_registry.folder = absl::GetFlag(FLAGS_adapter_dir);
  options.adapter_registry.max_adapters = absl::GetFlag(FLAGS_max_adapters);
  ASSIGN_OR_RETURN(options.prefix_cache_bytes,
                   common::ParseByteSize(absl::GetFlag(FLAGS_prefix_cache)));
  const std::string budget = absl::GetFlag(FLAGS_kv_budget);
  if (budget != "auto") {
    ASSIGN_OR_RETURN(const int64_t bytes, common::ParseByteSize(budget));
    // 0 is what the options call auto.
    options.kv_budget_bytes = std::max<int64_t>(bytes, 1);
  }
  return options;
}

int Main(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "Serves one Gemma 3 GGUF over gRPC.\n"
      "inference --model=FILE.gguf [--port=PORT]");
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    return Fail(absl::InvalidArgumentError(
        absl::StrCat("unexpected argument ", rest[1])));
  }
  const auto options = OptionsFromFlags();
  if (!options.ok()) return Fail(options.status());
  auto model = ModelSlot::Open(*options, absl::GetFlag(FLAGS_model_dir));
  if (!model.ok()) return Fail(model.status());

  OpenInferenceService open_inference(**model, (*model)->Get()->name());
  OpenInferenceGrpc open_inference_grpc(open_inference);
  VocabularyGrpc vocabulary(**model);
  common::ServerOptions server;
  server.host = absl::GetFlag(FLAGS_host);
  server.port = absl::GetFlag(FLAGS_port);
  server.port_file = absl::GetFlag(FLAGS_port_file);
  server.drain_timeout = absl::Seconds(absl::GetFlag(FLAGS_drain_seconds));
  server.on_drain = [&] { open_inference_grpc.Drain(); };
  std::optional<GenerationGrpc> service;  // outlives the runner
  common::ServerRunner runner(server);
  std::function<void()> drain;
  if (absl::GetFlag(FLAGS_allow_drain)) {
    drain = [&] {
      runner.ReportDraining();
      open_inference_grpc.Drain();
    };
  }
  service.emplace(**model, std::move(drain));
  runner.AddService(&*service, v1::GenerationService::service_full_name());
  runner.AddService(&vocabulary, v1::VocabularyService::service_full_name());
  runner.AddService(&open_inference_grpc,
                    oip::GRPCInferenceService::service_full_name());
  runner.AddHealthName((*model)->Get()->name());
  const absl::Status status = runner.RunUntilSignal();
  return status.ok() ? 0 : Fail(status);
}

}  // namespace
}  // namespace onegrid::inference

int main(int argc, char** argv) { return onegrid::inference::Main(argc, argv); }
