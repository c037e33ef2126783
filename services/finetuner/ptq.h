// Post-training quantization: a float model put on the grids of a plan without
// training. The baselines that tuning on the grid is compared with, and an
// export path of their own.
#ifndef SERVICES_FINETUNER_PTQ_H_
#define SERVICES_FINETUNER_PTQ_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/finetuner/awq.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/model_grids.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

enum class PtqMethod {
  kRtn,   // Round each weight to the nearest code.
  kGptq,  // Round with error feedback, behind the layers rounded so far.
  kAwq,   // Scale channels by their activations (awq.h), then round.
};

// "rtn", "gptq", "awq". InvalidArgument (UNKNOWN_METHOD; method): another name.
absl::StatusOr<PtqMethod> PtqMethodByName(absl::string_view name);

// A model on its grids.
struct QuantizedModel {
  std::vector<quant::GridMatrix> linears;  // Parallel to the specs.
  quant::GridMatrix embedding;
  std::vector<std::vector<float>> norms;  // As in FloatCheckpoint.
};

// Puts `checkpoint` on `grids`. The embedding is always rounded to nearest.
// `calibration` is not used by kRtn; some ten thousand tokens are enough.
// Cancelled when `progress`, called after each layer, says so. InvalidArgument
// (EMPTY_TEXT): no calibration where it is needed. FailedPrecondition
// (HESSIAN_NOT_POSITIVE): see FactorHessian. Errors of quant::EncodeMatrix.
absl::StatusOr<QuantizedModel> Quantize(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    PtqMethod method, absl::Span<const PackedSequence> calibration,
    const LayerProgress& progress);

// The values of a quantized model, to run it: `source` gives what is not in it.
FloatCheckpoint Dequantize(const FloatCheckpoint& source,
                           const QuantizedModel& quantized);

// Writes folded_file.h's file: linears, embedding, and the norms that differ
// from the source's.
absl::Status SaveQuantized(const FloatCheckpoint& source,
                           const QuantizedModel& quantized,
                           const std::string& path);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_PTQ_H_
