// How much each matrix of a model suffers on each grid: what a quantization
// plan under a byte budget is chosen by.
#ifndef SERVICES_FINETUNER_SENSITIVITY_H_
#define SERVICES_FINETUNER_SENSITIVITY_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/packing.h"
#include "services/finetuner/plan_search.h"

namespace onegrid::finetuner {

// What to measure. A grid whose group does not divide a matrix's inputs is left
// out for that matrix.
struct SensitivityOptions {
  std::vector<const quant::Grid*> linear_grids;
  std::vector<const quant::Grid*> embedding_grids;
  // Round the linears with error feedback for the inputs that the float model
  // has on the calibration text; else to nearest.
  bool feedback = false;
};

// Called after each matrix; returns false to stop.
using SensitivityProgress = std::function<bool(int64_t done, int64_t total)>;

// For every linear, then the embedding, and each of its grids the mean KL on
// `text`, nats per labelled token, of the float model from the same model with
// only that matrix on the grid. Predictions are compared over the tokens that
// are among the teacher's 32 most likely at any position of the text, which
// leaves out little probability and most of the cost of the head.
// Costs about half a forward pass of `text` for each matrix and grid.
// Cancelled when `progress` says so. InvalidArgument (EMPTY_TEXT): `text` has
// no label, or feedback no `calibration`. Errors of Quantize.
absl::StatusOr<std::vector<TensorCosts>> MeasureSensitivity(
    const FloatCheckpoint& checkpoint, const SensitivityOptions& options,
    absl::Span<const PackedSequence> calibration,
    absl::Span<const PackedSequence> text, const SensitivityProgress& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_SENSITIVITY_H_
