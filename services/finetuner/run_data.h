// What a tuning run reads: base, tokenizer, splits.
#ifndef SERVICES_FINETUNER_RUN_DATA_H_
#define SERVICES_FINETUNER_RUN_DATA_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/data_report.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/tuning_options.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"
#include "services/model/tokenizer.h"

namespace onegrid::finetuner {

struct RunData {
  std::unique_ptr<model::GgufFile> file;
  std::unique_ptr<model::Tokenizer> tokenizer;
  GridCheckpoint checkpoint;
  std::vector<TokenizedExample> train;
  std::vector<TokenizedExample> test;
  std::vector<TokenizedExample> validation;  // May be empty.
  DataReport report;
  std::string plan;     // The text of the plan that was applied, or empty.
  int64_t longest = 0;  // Tokens of the longest sequence that will be run.
  std::shared_ptr<const SharedWeights> shared;
};

// Called while the base is put on a plan's grids; returns false to stop.
using PlanProgress = std::function<bool(int64_t done, int64_t total)>;

// Errors of the readers, of PrepareDataset, ChoosePlan and Quantize.
absl::StatusOr<RunData> LoadRunData(const TuningInputs& inputs,
                                    const TuningOptions& options,
                                    const PlanProgress& progress);

// The float weights that belong to a base of these linears. InvalidArgument
// (FLOAT_BASE_MISMATCH; path, tensor): a linear is missing, of another shape,
// or there is one more. Errors of the readers.
absl::StatusOr<FloatCheckpoint> LoadFloatsOf(
    const std::string& path, absl::Span<const model::LinearSpec> linears);

// A checkpoint's float weights as a model of `compute_type`; keeps the shared
// weights alive. InvalidArgument (TEACHER_MISMATCH): another vocabulary than
// `config`'s.
absl::StatusOr<std::unique_ptr<GemmaModel>> LoadFloatModel(
    const std::string& path, const model::GemmaConfig& config, int64_t longest,
    at::ScalarType compute_type);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_RUN_DATA_H_
