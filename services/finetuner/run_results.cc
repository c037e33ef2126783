#include "services/finetuner/run_results.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/base/thread_pool.h"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/common/log.h"
#include "services/finetuner/evaluate.h"
#include "services/finetuner/fold.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/probe.h"
#include "services/finetuner/served_model.h"

namespace onegrid::finetuner {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One call of WriteResults.
class Results {
 public:
  Results(const TuningInputs& inputs, const TuningOptions& options,
          const RunData& data, const std::string& folder,
          const ResultProgress& progress)
      : inputs_(inputs),
        options_(options),
        data_(data),
        folder_(folder),
        progress_(progress) {}

  absl::Status Evaluate(const GemmaModel& model, const LoraAdapter* adapter,
                        const std::string& label,
                        EvaluationResult* result) const;
  // Writes the probes of `model`, which has the linears `tuned`.
  absl::Status Probe(const GemmaModel& model,
                     absl::Span<const quant::GridMatrix> tuned,
                     TuningOutputs* outputs) const;
  std::string Path(const std::string& name) const {
    return absl::StrCat(folder_, "/", name);
  }

 private:
  const TuningInputs& inputs_;
  const TuningOptions& options_;
  const RunData& data_;
  const std::string& folder_;
  const ResultProgress& progress_;
};

absl::Status Results::Evaluate(const GemmaModel& model,
                               const LoraAdapter* adapter,
                               const std::string& label,
                               EvaluationResult* result) const {
  const Clock::time_point start = Clock::now();
  ForwardOptions forward;
  forward.adapter = adapter;
  ASSIGN_OR_RETURN(
      *result,
      finetuner::Evaluate(model, forward, data_.test, options_.sequence_tokens,
                          [&](int64_t done, int64_t total) {
                            return progress_("evaluate", done, total,
                                             SecondsSince(start));
                          }));
  common::LogInfo("evaluated", {{"model", label},
                                {"accuracy", result->accuracy},
                                {"perplexity", result->perplexity},
                                {"examples", result->examples},
                                {"seconds", SecondsSince(start)}});
  return absl::OkStatus();
}

absl::Status Results::Probe(const GemmaModel& model,
                            absl::Span<const quant::GridMatrix> tuned,
                            TuningOutputs* outputs) const {
  if (inputs_.probe_text.empty()) return absl::OkStatus();
  const Clock::time_point start = Clock::now();
  ASSIGN_OR_RETURN(const std::string text,
                   common::ReadFile(inputs_.probe_text));
  const std::vector<std::vector<int32_t>> sequences = ProbeSequences(
      *data_.tokenizer, text, options_.probe_tokens, data_.validation);
  if (sequences.empty()) return absl::OkStatus();
  const auto progress = [&](int64_t done) {
    return progress_("probe", done, static_cast<int64_t>(sequences.size()),
                     SecondsSince(start));
  };
  outputs->probe = Path("probe.safetensors");
  const int64_t vocab = data_.checkpoint.config.vocab_size;
  RETURN_IF_ERROR(WriteProbe(PredictInFloat(model), vocab, sequences,
                             outputs->probe, progress));
  if (!options_.probe_as_served) return absl::OkStatus();
  kernels::ThreadPool pool(at::get_num_threads());
  const ServedModel served(data_.checkpoint, tuned, pool);
  outputs->served_probe = Path("probe_served.safetensors");
  return WriteProbe(PredictAsServed(served), vocab, sequences,
                    outputs->served_probe, progress);
}

}  // namespace

absl::Status WriteResults(const TuningInputs& inputs,
                          const TuningOptions& options, const RunData& data,
                          LoraAdapter* adapter,
                          absl::Span<const quant::GridMatrix> tuned,
                          const std::string& folder,
                          const ResultProgress& progress,
                          TuningOutputs* outputs) {
  const Results results(inputs, options, data, folder, progress);
  const GridCheckpoint& base = data.checkpoint;
  GemmaModel exact(data.shared, base.linears, at::kFloat);
  if (adapter != nullptr) {
    adapter->Refresh(at::kFloat);
    RETURN_IF_ERROR(
        results.Evaluate(exact, adapter, "adapter", &outputs->float_adapter));
  }
  if (tuned.empty()) return absl::OkStatus();
  outputs->codes_changed = ShareOfCodesChanged(base.linears, tuned);
  outputs->folded = results.Path("folded.safetensors");
  RETURN_IF_ERROR(SaveFolded(base, tuned, !data.plan.empty(), outputs->folded));
  for (size_t i = 0; i < tuned.size(); ++i) {
    exact.SetLinear(static_cast<int64_t>(i), DequantizeTensor(tuned[i]));
  }
  RETURN_IF_ERROR(
      results.Evaluate(exact, nullptr, "tuned", &outputs->folded_metrics));
  return results.Probe(exact, tuned, outputs);
}

}  // namespace onegrid::finetuner
