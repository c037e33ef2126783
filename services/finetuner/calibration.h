// Calibration: what the linears of a model get to see on some text, collected
// layer by layer.
#ifndef SERVICES_FINETUNER_CALIBRATION_H_
#define SERVICES_FINETUNER_CALIBRATION_H_

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "services/finetuner/attention.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Of the inputs x [T, in] of one linear group, over all sequences. Undefined if
// the layer has no such group.
struct InputStatistics {
  at::Tensor hessian;    // Sum of x^T x, [in, in] float32.
  at::Tensor magnitude;  // Sum of |x|, [in] float32.
};

// Tokens of the longest segment: what MakeSharedWeights wants to know.
int64_t LongestSegment(absl::Span<const PackedSequence> sequences);

// By LinearGroup.
using LayerStatistics = std::array<InputStatistics, kGroupsPerLayer>;

// The sequences on their way through the layers of `model`, which must outlive
// this and may be changed between calls. Holds one float32 residual stream for
// each sequence. Not thread-safe.
class CalibrationPass {
 public:
  CalibrationPass(const GemmaModel& model,
                  absl::Span<const PackedSequence> sequences);

  // Runs layer `layer`, the next one, without going on to the one behind it.
  LayerStatistics Observe(int64_t layer);
  // Runs the layer and takes its outputs for the inputs of the one behind it.
  void Advance(int64_t layer);
  // Both in one run.
  LayerStatistics ObserveAndAdvance(int64_t layer);

  // Each sequence before the next layer.
  const std::vector<LayerStream>& streams() const { return streams_; }
  const std::vector<AttentionLayout>& layouts() const { return layouts_; }

 private:
  LayerStatistics Run(int64_t layer, bool observe, bool advance);

  const GemmaModel& model_;
  std::vector<AttentionLayout> layouts_;
  std::vector<LayerStream> streams_;
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_CALIBRATION_H_
