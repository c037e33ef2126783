#ifndef SERVICES_MODEL_CT_MATRIX_H_
#define SERVICES_MODEL_CT_MATRIX_H_

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/model/ct_config.h"
#include "services/model/packed_matrix.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// A packed module X of a compressed-tensors folder is stored as
//   X.weight_packed I32 [out, ceil(in * bits / 32)]: see
//   kernels/quant/ct_pack.h X.weight_scale  BF16, F16 or F32 [out, in / group],
//   [out, 1] for one a row X.weight_shape  I64 or I32 [2]: out, in
struct CtModuleShape {
  std::string name;  // X
  int64_t out;
  int64_t in;
  CtScheme scheme;
};

// Checks the tensors of one module and adds their names to `known`.
// DataLoss (CORRUPT_FILE), naming folder and tensor: one is missing, or of
// another type or shape, or weight_shape says another; a group that does not
// divide a row. Unimplemented (UNSUPPORTED_QUANTIZATION): zero points, or an
// order of the inputs (weight_g_idx).
absl::Status CheckCtModule(const SafetensorsFolder& weights,
                           const std::string& folder,
                           const CtModuleShape& module,
                           std::set<std::string>* known);

// The whole matrix of a module.
PackedShape ShapeOf(const CtModuleShape& module);

// Rows [begin, end) of a module that CheckCtModule has passed. InvalidArgument
// (UNSUPPORTED_TENSOR): a scale that is not finite.
absl::StatusOr<PackedMatrix> ReadCtRows(const SafetensorsFolder& weights,
                                        const CtModuleShape& module,
                                        int64_t begin, int64_t end);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_CT_MATRIX_H_
