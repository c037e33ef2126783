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
// codes by EncodePacked, which see for what is kept and for the errors. Floats
// of no layer (the head, for one) that lie on a grid or a lattice go there as a
// table's do.
absl::Status AddHfLinear(const model::HfCheckpoint& checkpoint,
                         const model::LinearSpec& spec, int threads,
                         BaseBuilder& builder);

// A table that is looked up by token. Packed codes go into the blocks of their
// grid, with every scale that f16 holds. Floats that all lie on one grid, as a
// compressed-tensors export has them, go back into its blocks
// (quant::FindExactGrid); floats that all lie on 4-bit lattices, as
// quantization-aware training leaves them, get the lattices' codes back in
// Q4_0; others become Q8_0 by ggml's rule. Floats are read twice. Errors: those
// of EncodePacked and BaseBuilder::AddTable; ABORTED (FILE_CHANGED): the second
// time they were on the grid no more.
absl::Status AddHfTable(const model::HfCheckpoint& checkpoint,
                        const model::TableSpec& spec, int threads,
                        BaseBuilder& builder);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_HF_MATRICES_H_
