// The matrices of a Hugging Face folder, floats or packed, on their way into an
// on-grid GGUF.
#ifndef SERVICES_EXPORTER_HF_MATRICES_H_
#define SERVICES_EXPORTER_HF_MATRICES_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "services/exporter/base_builder.h"
#include "services/model/hf_checkpoint.h"
#include "services/model/tensor_names.h"

namespace onegrid::exporter {

// A linear layer: floats by EncodeFloats with up to `threads` threads, packed
// codes by EncodeCt, which see for what is kept and for the errors.
absl::Status AddHfLinear(const model::HfCheckpoint& checkpoint,
                         const model::LinearSpec& spec, int threads,
                         BaseBuilder& builder);

// A table that is looked up by token. Packed codes go into the blocks of their
// grid, with every scale that f16 holds. Floats that all lie on one grid, as a
// compressed-tensors export has them, go back into its blocks
// (quant::FindExactGrid); others become Q8_0 by ggml's rule. Errors: those of
// EncodeCt and BaseBuilder::AddTable.
absl::Status AddHfTable(const model::HfCheckpoint& checkpoint,
                        const model::TableSpec& spec, BaseBuilder& builder);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_HF_MATRICES_H_
