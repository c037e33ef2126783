// From a file and options to a service that answers.
#ifndef SERVICES_INFERENCE_SERVED_MODEL_H_
#define SERVICES_INFERENCE_SERVED_MODEL_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "kernels/base/thread_pool.h"
#include "proto/onegrid/v1/generation.pb.h"
#include "services/common/thread_count.h"
#include "services/inference/adapter_registry.h"
#include "services/inference/engine.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/generation_service.h"
#include "services/inference/scheduler.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

namespace onegrid::inference {

struct ServedModelOptions {
  std::string model_path;              // of shards: any one
  std::string model_name;              // empty: ModelName says
  std::string artifact_sha256;         // empty: whatever the files have
  std::string activations = "int8";    // "int8", "f32"
  std::string kv_cache = "int8";       // "int8", "bf16", "f32"
  std::string isa = "auto";            // "auto" or kernels::IsaName
  std::string prompt_lookup = "auto";  // "auto", "always", "off"
  bool head_sketch = true;             // a head split for logit_search.h
  // model::ChatFormatNamed; "auto": by the chat template in the file
  std::string chat_format = "auto";
  bool allow_degraded = false;
  common::ThreadCount threads;
  int max_sequences = 8;
  int max_queue = 64;
  absl::Duration max_queue_delay = absl::InfiniteDuration();
  int calm_queue = 32;     // see SchedulerOptions
  int max_context = 8192;  // a shorter model context takes its place
  int max_step_tokens = 512;
  int max_shared_step_tokens = 256;  // see StepOptions
  // Loaded before the server is ready: NAME=PATH, as AdapterRegistry::Load.
  std::vector<std::string> adapters;
  AdapterRegistryOptions adapter_registry;
  int64_t prefix_cache_bytes = int64_t{256} << 20;  // 0: none is kept
  // Of all keys and values; 0: as much as max_sequences of max_context and the
  // kept prefixes can take
  int64_t kv_budget_bytes = 0;
};

// Reads the three precision options. InvalidArgument (INVALID_FLAG): an unknown
// word. FailedPrecondition (ISA_NOT_SUPPORTED): the processor lacks the
// instruction set and allow_degraded is false; if true, the best one takes its
// place and a sentence is added to `degraded`.
absl::StatusOr<Numerics> ChooseNumerics(const ServedModelOptions& options,
                                        std::vector<std::string>* degraded);

// Sets chat_format and chat_template_sha256. InvalidArgument (INVALID_FLAG):
// another word than those of ServedModelOptions::chat_format. Errors of
// GgufFile::GetString.
absl::Status DescribeChat(const model::GgufFile& file,
                          const model::GemmaConfig& config,
                          absl::string_view chat_format, v1::ServerInfo* info);

// What callers name the model by unless they were told otherwise: the name in
// the file (general.name), else that of the file without ".gguf".
std::string ModelName(const model::GgufFile& file, const std::string& path);

// InvalidArgument (INVALID_FLAG): another word than those of prompt_lookup.
absl::StatusOr<Drafting> ParseDrafting(absl::string_view value);

// Loads each NAME=PATH. InvalidArgument (INVALID_FLAG): something else. Errors
// of AdapterRegistry::Load.
absl::Status LoadAdapters(const std::vector<std::string>& adapters,
                          AdapterRegistry& registry);

// Owns everything between the file and the service. The file is not needed
// once Load has returned.
class ServedModel {
 public:
  // DataLoss (DIGEST_MISMATCH): the file is not the artifact named. Aborted
  // (FILE_CHANGED): it changed meanwhile.
  // InvalidArgument (INVALID_FLAG): kv_budget_bytes hold no sequence. Errors of
  // ChooseNumerics, model::GgufFile, model::Tokenizer, LoadGemmaWeights and
  // Engine::Create.
  static absl::StatusOr<std::unique_ptr<ServedModel>> Load(
      const ServedModelOptions& options);

  GenerationService& service() { return *service_; }
  const std::string& name() const { return name_; }
  const Scheduler& scheduler() const { return *scheduler_; }
  const model::Tokenizer& tokenizer() const { return *tokenizer_; }

 private:
  explicit ServedModel(int threads) : pool_(threads) {}

  std::string name_;
  // In order of construction; destroyed in reverse.
  kernels::ThreadPool pool_;
  std::unique_ptr<model::GgufFile> file_;  // null if nothing refers to it
  std::unique_ptr<model::Tokenizer> tokenizer_;
  std::unique_ptr<GemmaWeights> weights_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<AdapterRegistry> adapters_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<GenerationService> service_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_SERVED_MODEL_H_
