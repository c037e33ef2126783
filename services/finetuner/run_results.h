// What a finished tuning run leaves: scores of its models on the test split and
// the files that later steps take.
#ifndef SERVICES_FINETUNER_RUN_RESULTS_H_
#define SERVICES_FINETUNER_RUN_RESULTS_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/run_data.h"
#include "services/finetuner/tuning_options.h"

namespace onegrid::finetuner {

// Called after each part of `stage` ("evaluate", "probe"), `seconds` after it
// began; returns false to stop.
using ResultProgress = std::function<bool(
    const std::string& stage, int64_t done, int64_t total, double seconds)>;

// Scores the adapter (nullptr: there is none) beside the base and the tuned
// linears (empty: there are none), both exactly: float32 activations on
// dequantized weights. Writes folded.safetensors and the probes that the
// options ask for into `folder`, and fills the fields of `outputs` about them.
// `adapter` is left refreshed to float32. Cancelled; errors of files.
absl::Status WriteResults(const TuningInputs& inputs,
                          const TuningOptions& options, const RunData& data,
                          LoraAdapter* adapter,
                          absl::Span<const quant::GridMatrix> tuned,
                          const std::string& folder,
                          const ResultProgress& progress,
                          TuningOutputs* outputs);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_RUN_RESULTS_H_
