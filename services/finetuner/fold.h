// Stage fold: the adapter goes into the codes, scales kept.
#ifndef SERVICES_FINETUNER_FOLD_H_
#define SERVICES_FINETUNER_FOLD_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/grid.h"
#include "services/finetuner/gemma_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Codes and scales of every linear, parallel to the checkpoint's.
struct FoldResult {
  std::vector<quant::GridMatrix> linears;
  double codes_changed = 0;  // See ShareOfCodesChanged.
};

// Share of the codes of `before` that are others in `after`, 0..1; all of a
// matrix that is on another grid.
double ShareOfCodesChanged(absl::Span<const quant::GridMatrix> before,
                           absl::Span<const quant::GridMatrix> after);

// Called after each layer; returns false to stop.
using FoldProgress = std::function<bool(int64_t layers_done)>;

// Rounds W0 + scale B A of every targeted linear onto the checkpoint's scales,
// with Hessians of the inputs that `calibration` gives the adapted model.
// Tried with the section task (adapter: 86.2 % right, perplexity 1.2603): this
// way 85.8 %, 1.2668, 4.3 % of the codes change; with columns in their order
// 83.4 %, 1.2857; with inputs from behind folded layers and the target
// corrected for their drift 86.2 %, 1.2695, but 34 % of the codes change.
// `model` holds the checkpoint's linears; its adapter copies must be of its
// compute type. Linears without an adapter keep their codes. Cancelled when
// `progress` says so.
absl::StatusOr<FoldResult> Fold(const GridCheckpoint& checkpoint,
                                const GemmaModel& model,
                                const LoraAdapter& adapter,
                                absl::Span<const PackedSequence> calibration,
                                const FoldProgress& progress);

// The file of a tuned model (folded_file.h). With `with_embedding` the
// checkpoint's embedding is there too, for a plan that put it on another grid
// than the base's.
absl::Status SaveFolded(const GridCheckpoint& checkpoint,
                        absl::Span<const quant::GridMatrix> linears,
                        bool with_embedding, const std::string& path);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_FOLD_H_
