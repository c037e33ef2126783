#ifndef SERVICES_MODEL_GEMMA_QUANT_MATRIX_H_
#define SERVICES_MODEL_GEMMA_QUANT_MATRIX_H_

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/model/packed_matrix.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// A packed module X of a folder of quant_method "gemma" (the layout is that of
// transformers 5.23, integrations/gemma_quant.py):
//   X.weight       [out, in * bits / 8]: U8 for 2 and 4 bits, the first element
//                  in the lowest bits, as code + 2^(bits - 1); I8 for 8 bits,
//                  the code itself
//   X.weight_scale F32 (or BF16, F16) [out, 1]
//   X.input_activation_scale, X.output_activation_scale: floats of one element,
//                  which may be absent; 0: none
// of a table X.embedding_quantized and X.embedding_scale [rows, n], one scale
// for each n-th of a row. Beside the linears of attention k_cache_scale and
// v_cache_scale may stand, of any float shape.
struct GemmaModuleShape {
  std::string name;  // X
  int64_t out;
  int64_t in;
  int bits;
  bool embedding;
};

// Checks the tensors of one module and adds their names to `known`; a scale of
// activations that is not 0 adds to `static_scales`.
// DataLoss (CORRUPT_FILE), naming folder and tensor: one is missing, or of
// another type or shape. InvalidArgument (UNSUPPORTED_TENSOR): rows that are
// not whole groups of 32.
absl::Status CheckGemmaModule(const SafetensorsFolder& weights,
                              const std::string& folder,
                              const GemmaModuleShape& module,
                              std::set<std::string>* known,
                              int64_t* static_scales);

// Adds the names of the scales of keys and values to `known` and their number
// to `static_scales`.
void TakeCacheScales(const SafetensorsFolder& weights,
                     std::set<std::string>* known, int64_t* static_scales);

// The whole matrix of a module that CheckGemmaModule has passed.
PackedShape ShapeOf(const SafetensorsFolder& weights,
                    const GemmaModuleShape& module);

// Rows [begin, end) of such a module. InvalidArgument (UNSUPPORTED_TENSOR): a
// scale that is not finite.
absl::StatusOr<PackedMatrix> ReadGemmaRows(const SafetensorsFolder& weights,
                                           const GemmaModuleShape& module,
                                           int64_t begin, int64_t end);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GEMMA_QUANT_MATRIX_H_
