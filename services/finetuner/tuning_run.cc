#include "services/finetuner/tuning_run.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/cpu_features.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/common/thread_count.h"
#include "services/finetuner/evaluate.h"
#include "services/finetuner/example_reader.h"
#include "services/finetuner/fold.h"
#include "services/finetuner/gemma3_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/probe.h"
#include "services/finetuner/trainer.h"
#include "services/model/gguf_reader.h"
#include "services/model/tokenizer.h"

namespace onegrid::finetuner {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The data of a run, tokenized.
struct Splits {
  std::vector<TokenizedExample> train;
  std::vector<TokenizedExample> test;
  std::vector<TokenizedExample> validation;
};

// A run in progress: each method is one stage.
class Run {
 public:
  Run(const TuningInputs& inputs, const TuningOptions& options,
      const std::string& folder, TuningHost* host)
      : inputs_(inputs), options_(options), folder_(folder), host_(host) {}

  absl::StatusOr<TuningOutputs> All();

 private:
  absl::Status LoadFiles();
  absl::Status Learn();
  absl::Status SaveCheckpoint(const Trainer& trainer,
                              const TuningProgress& progress);
  absl::Status FoldAdapter();
  absl::Status EvaluateModel(const Gemma3Model& model,
                             const LoraAdapter* adapter,
                             const std::string& label,
                             EvaluationResult* result);
  absl::Status Probe(const Gemma3Model& model);
  // Reports progress of a stage of `total` equal parts; false when cancelled.
  bool Report(const std::string& stage, int64_t done, int64_t total,
              Clock::time_point start);
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_, "/", name);
  }

  const TuningInputs& inputs_;
  const TuningOptions& options_;
  const std::string folder_;
  TuningHost* const host_;
  std::unique_ptr<model::GgufFile> file_;
  std::unique_ptr<model::Tokenizer> tokenizer_;
  GridCheckpoint checkpoint_;
  Splits splits_;
  std::shared_ptr<const SharedWeights> shared_;
  std::unique_ptr<Gemma3Model> learn_model_;
  std::optional<LoraAdapter> adapter_;
  std::string metrics_jsonl_;
  FoldResult fold_;
  TuningOutputs outputs_;
};

// Every training example must keep at least one label when it is cut.
absl::Status RequireRoomForLabels(const std::vector<TokenizedExample>& examples,
                                  int64_t sequence_tokens) {
  for (size_t i = 0; i < examples.size(); ++i) {
    const int64_t start = examples[i].labels.front().begin;
    if (start < sequence_tokens) continue;
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "EXAMPLE_TOO_LONG",
        absl::StrCat("training example ", i + 1, " has ", start,
                     " prompt tokens, which leaves no room for its completion "
                     "in sequence_tokens = ",
                     sequence_tokens),
        {{"split", "train"}, {"example", absl::StrCat(i + 1)}});
  }
  return absl::OkStatus();
}

absl::Status RequireExamples(const std::vector<TokenizedExample>& examples,
                             const std::string& split) {
  if (!examples.empty()) return absl::OkStatus();
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, "DATASET_SCHEMA_INVALID",
      absl::StrCat("split ", split, " has no example"), {{"split", split}});
}

at::ScalarType ComputeType(Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return at::kFloat;
    case Precision::kBf16:
      return at::kBFloat16;
    case Precision::kAuto:
      // Without AVX-512 BF16 the products would be emulated, and slower.
      return kernels::GetCpuFeatures().avx512bf16 ? at::kBFloat16 : at::kFloat;
  }
  return at::kFloat;
}

bool Run::Report(const std::string& stage, int64_t done, int64_t total,
                 Clock::time_point start) {
  TuningProgress progress;
  progress.stage = stage;
  progress.step = done;
  progress.total_steps = total;
  if (done > 0) {
    progress.eta_seconds = SecondsSince(start) *
                           static_cast<double>(total - done) /
                           static_cast<double>(done);
  }
  host_->OnProgress(progress);
  return !host_->cancelled();
}

absl::Status Run::LoadFiles() {
  Report("load", 0, 0, Clock::now());
  ASSIGN_OR_RETURN(file_, model::GgufFile::Open(inputs_.base));
  ASSIGN_OR_RETURN(checkpoint_, LoadGridCheckpoint(*file_));
  ASSIGN_OR_RETURN(tokenizer_, model::Tokenizer::FromGguf(*file_));
  ASSIGN_OR_RETURN(splits_.train, ReadExamples(inputs_.train, *tokenizer_,
                                               options_.max_examples));
  RETURN_IF_ERROR(RequireExamples(splits_.train, "train"));
  RETURN_IF_ERROR(
      RequireRoomForLabels(splits_.train, options_.sequence_tokens));
  ASSIGN_OR_RETURN(splits_.test, ReadExamples(inputs_.test, *tokenizer_,
                                              options_.max_eval_examples));
  RETURN_IF_ERROR(RequireExamples(splits_.test, "test"));
  if (!inputs_.validation.empty()) {
    ASSIGN_OR_RETURN(
        splits_.validation,
        ReadExamples(inputs_.validation, *tokenizer_, kProbeExamples));
  }
  int64_t longest = std::max(options_.sequence_tokens, kProbeWindow);
  for (const auto* split : {&splits_.test, &splits_.validation}) {
    for (const TokenizedExample& example : *split) {
      longest = std::max(longest, static_cast<int64_t>(example.tokens.size()));
    }
  }
  shared_ = MakeSharedWeights(checkpoint_, longest);
  return absl::OkStatus();
}

std::string MetricsLine(const StepMetrics& metrics, double tokens_per_second) {
  return nlohmann::json({{"step", metrics.step},
                         {"loss", metrics.loss},
                         {"lr", metrics.learning_rate},
                         {"grad_norm", metrics.grad_norm},
                         {"tokens", metrics.tokens},
                         {"labels", metrics.labels},
                         {"seconds", metrics.seconds},
                         {"tokens_per_second", tokens_per_second}})
             .dump() +
         "\n";
}

absl::Status Run::SaveCheckpoint(const Trainer& trainer,
                                 const TuningProgress& progress) {
  const std::string path = Path("checkpoint.safetensors");
  RETURN_IF_ERROR(trainer.Save(path, metrics_jsonl_));
  return host_->OnCheckpoint(progress, path);
}

absl::Status Run::Learn() {
  learn_model_ = std::make_unique<Gemma3Model>(shared_, checkpoint_.linears,
                                               ComputeType(options_.precision));
  LoraOptions lora{options_.rank, options_.alpha, options_.dropout,
                   options_.target_modules};
  ASSIGN_OR_RETURN(adapter_,
                   LoraAdapter::Create(checkpoint_.specs, lora, options_.seed));
  Trainer trainer(*learn_model_, &*adapter_, splits_.train, options_);
  if (!inputs_.resume_from.empty()) {
    RETURN_IF_ERROR(trainer.Load(inputs_.resume_from, &metrics_jsonl_));
    common::LogInfo("tuning_resumed", {{"step", trainer.step()}});
  }
  double seconds = 0;
  int64_t tokens = 0, steps = 0;
  while (trainer.step() < trainer.total_steps()) {
    ASSIGN_OR_RETURN(const StepMetrics metrics,
                     trainer.Step([this] { return host_->cancelled(); }));
    seconds += metrics.seconds;
    tokens += metrics.tokens;
    ++steps;
    const double speed = static_cast<double>(metrics.tokens) / metrics.seconds;
    metrics_jsonl_ += MetricsLine(metrics, speed);
    TuningProgress progress;
    progress.stage = "learn";
    progress.step = metrics.step;
    progress.total_steps = trainer.total_steps();
    progress.eta_seconds =
        seconds / static_cast<double>(steps) *
        static_cast<double>(trainer.total_steps() - metrics.step);
    progress.metrics = {{"loss", metrics.loss},
                        {"lr", metrics.learning_rate},
                        {"grad_norm", metrics.grad_norm},
                        {"tokens_per_second", speed}};
    host_->OnProgress(progress);
    if (metrics.step % options_.checkpoint_steps == 0 ||
        metrics.step == trainer.total_steps()) {
      RETURN_IF_ERROR(SaveCheckpoint(trainer, progress));
    }
  }
  if (seconds > 0) {
    outputs_.tokens_per_second = static_cast<double>(tokens) / seconds;
  }
  outputs_.metrics_jsonl = Path("metrics.jsonl");
  RETURN_IF_ERROR(
      common::WriteFileAtomic(outputs_.metrics_jsonl, metrics_jsonl_));
  outputs_.adapter = Path("adapter.safetensors");
  RETURN_IF_ERROR(adapter_->SaveTensors(outputs_.adapter));
  outputs_.adapter_config = Path("adapter_config.json");
  return common::WriteFileAtomic(
      outputs_.adapter_config, adapter_->ConfigJson(options_.base_model_name));
}

absl::Status Run::FoldAdapter() {
  const Clock::time_point start = Clock::now();
  const std::vector<TokenizedExample>& train = splits_.train;
  std::vector<int64_t> order =
      ShuffledOrder(static_cast<int64_t>(train.size()), options_.seed + 1);
  order.resize(
      std::min(order.size(), static_cast<size_t>(options_.fold_examples)));
  const std::vector<PackedSequence> calibration =
      Pack(train, order, options_.sequence_tokens);
  const int64_t layers = checkpoint_.config.layers;
  Report("fold", 0, layers, start);
  ASSIGN_OR_RETURN(fold_, Fold(checkpoint_, *learn_model_, *adapter_,
                               calibration, [&](int64_t done) {
                                 return Report("fold", done, layers, start);
                               }));
  outputs_.folded = Path("folded.safetensors");
  outputs_.codes_changed = fold_.codes_changed;
  common::LogInfo("fold_done", {{"seconds", SecondsSince(start)},
                                {"codes_changed", fold_.codes_changed}});
  return SaveFolded(checkpoint_, fold_, outputs_.folded);
}

absl::Status Run::EvaluateModel(const Gemma3Model& model,
                                const LoraAdapter* adapter,
                                const std::string& label,
                                EvaluationResult* result) {
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(
      *result, Evaluate(model, adapter, splits_.test, options_.sequence_tokens,
                        [&](int64_t done, int64_t total) {
                          return Report("evaluate", done, total, start);
                        }));
  common::LogInfo("evaluated", {{"model", label},
                                {"accuracy", result->accuracy},
                                {"perplexity", result->perplexity},
                                {"examples", result->examples},
                                {"seconds", SecondsSince(start)}});
  return absl::OkStatus();
}

absl::Status Run::Probe(const Gemma3Model& model) {
  if (inputs_.probe_text.empty()) return absl::OkStatus();
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const std::string text,
                   common::ReadFile(inputs_.probe_text));
  const std::vector<std::vector<int32_t>> sequences = ProbeSequences(
      *tokenizer_, text, options_.probe_tokens, splits_.validation);
  if (sequences.empty()) return absl::OkStatus();
  outputs_.probe = Path("probe.safetensors");
  return WriteProbe(model, sequences, outputs_.probe, [&](int64_t done) {
    return Report("probe", done, static_cast<int64_t>(sequences.size()), start);
  });
}

absl::StatusOr<TuningOutputs> Run::All() {
  RETURN_IF_ERROR(LoadFiles());
  RETURN_IF_ERROR(Learn());
  if (options_.fold) RETURN_IF_ERROR(FoldAdapter());
  learn_model_.reset();
  // Exact from here on: float32 activations on dequantized weights.
  Gemma3Model exact(shared_, checkpoint_.linears, at::kFloat);
  adapter_->Refresh(at::kFloat);
  RETURN_IF_ERROR(
      EvaluateModel(exact, &*adapter_, "adapter", &outputs_.float_adapter));
  if (!options_.fold) return outputs_;
  for (size_t i = 0; i < fold_.linears.size(); ++i) {
    exact.SetLinear(static_cast<int64_t>(i),
                    DequantizeTensor(fold_.linears[i]));
  }
  RETURN_IF_ERROR(
      EvaluateModel(exact, nullptr, "folded", &outputs_.folded_metrics));
  RETURN_IF_ERROR(Probe(exact));
  return outputs_;
}

}  // namespace

absl::StatusOr<TuningOutputs> RunTuning(const TuningInputs& inputs,
                                        const TuningOptions& options,
                                        const std::string& folder,
                                        TuningHost* host) {
  RETURN_IF_ERROR(ValidateOptions(options));
  const common::ThreadCount threads =
      common::ChooseThreadCount(options.threads);
  at::set_num_threads(threads.threads);
  common::LogInfo(
      "tuning_started",
      {{"threads", threads.threads},
       {"threads_from", threads.reason},
       {"precision", at::toString(ComputeType(options.precision))}});
  // The one place where LibTorch's exceptions become a status.
  try {
    return Run(inputs, options, folder, host).All();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("LibTorch: ", error.what()));
  }
}

}  // namespace onegrid::finetuner
