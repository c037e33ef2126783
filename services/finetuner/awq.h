// Activation-aware scaling of weights: the float model rewritten so that
// rounding hurts less.
//
// Input channel j of a linear group is divided by t[j] and its column of the
// weights multiplied by it, which changes nothing in float, but gives channels
// with strong inputs finer steps. The division is folded into what makes the
// inputs: the norm before q, k, v and before gate and up; the rows of up before
// down; the rows of v before o, where the query heads that share a key/value
// head share its scales. t = mean|x|^a, with a in 0, 1/20 .. 19/20 found for
// each group by the squared output error after rounding.
// Source: Lin et al., AWQ, arXiv 2306.00978.
#ifndef SERVICES_FINETUNER_AWQ_H_
#define SERVICES_FINETUNER_AWQ_H_

#include <cstdint>
#include <functional>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/finetuner/float_checkpoint.h"
#include "services/finetuner/model_grids.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Called after each layer; returns false to stop.
using LayerProgress = std::function<bool(int64_t done, int64_t total)>;

// The same function as `checkpoint` in other linears and norms, scaled for
// rounding to `grids`. Statistics are those of the float model on
// `calibration`. Cancelled when `progress` says so; errors of EncodeTensor.
absl::StatusOr<FloatCheckpoint> ScaleChannels(
    const FloatCheckpoint& checkpoint, const ModelGrids& grids,
    absl::Span<const PackedSequence> calibration,
    const LayerProgress& progress);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_AWQ_H_
