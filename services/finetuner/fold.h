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
#include "kernels/quant/int4_g32.h"
#include "services/finetuner/gemma3_model.h"
#include "services/finetuner/grid_checkpoint.h"
#include "services/finetuner/lora_adapter.h"
#include "services/finetuner/packing.h"

namespace onegrid::finetuner {

// Codes and scales of every linear, parallel to the checkpoint's.
struct FoldResult {
  std::vector<quant::Int4Matrix> linears;
  double codes_changed = 0;  // Share of all codes, 0..1.
};

// Called after each layer; returns false to stop.
using FoldProgress = std::function<bool(int64_t layers_done)>;

// Rounds W0 + scale B A of every targeted linear onto the checkpoint's scales,
// layer by layer: Hessians are of the inputs x that `calibration` gives behind
// the layers folded so far, and the target is corrected so that on them it
// gives what it gave on the adapted model's inputs a: W (I + (a - x)^T x H^-1).
// Measured on the section task (adapter 86.2 %): 86.2 %; with the adapted
// model's Hessians and no correction 83.4 %.
// `model` holds the checkpoint's linears; its adapter copies must be of its
// compute type. Linears without an adapter keep their codes. Cancelled when
// `progress` says so.
absl::StatusOr<FoldResult> Fold(const GridCheckpoint& checkpoint,
                                const Gemma3Model& model,
                                const LoraAdapter& adapter,
                                absl::Span<const PackedSequence> calibration,
                                const FoldProgress& progress);

// N.codes I8 [out, in] and N.scales F32 [out, in / 32] for each linear N.
absl::Status SaveFolded(const GridCheckpoint& checkpoint,
                        const FoldResult& result, const std::string& path);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_FOLD_H_
