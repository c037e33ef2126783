#ifndef SERVICES_MODEL_PACKED_MATRIX_H_
#define SERVICES_MODEL_PACKED_MATRIX_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/quant/grid.h"
#include "services/model/safetensors_folder.h"

namespace onegrid::model {

// Rows of a packed matrix of a Hugging Face folder, codes and scales as they
// are stored: weight [r, i] is codes[r * cols + i] * scales[(r * cols + i) /
// group].
struct PackedMatrix {
  int64_t rows = 0;
  int64_t cols = 0;
  int bits = 0;               // codes are -2^(bits - 1) .. 2^(bits - 1) - 1
  int64_t group = 0;          // divides cols; cols for one scale a row
  std::vector<int8_t> codes;  // [rows, cols]
  std::vector<float> scales;  // [rows, cols / group], finite
  int64_t first_row = 0;      // the number of row 0 in the whole matrix
};

// The whole matrix.
struct PackedShape {
  int64_t rows = 0;
  int64_t cols = 0;
  int bits = 0;
  int64_t group = 0;
};

// The grid of the matrix's bits: 8 bits go to int8_g32, 4 bits to int4_g32,
// ternary codes of 2 bits to int2_g64; 2 bits with a code -2, or with scales
// that are not those of whole groups of 64, to int4_g32, which has all four
// codes. ternary: no code of the whole matrix is -2.
const quant::Grid& GridOfPacked(const PackedShape& shape, bool ternary);

// Rows [begin, end) of a tensor [rows, scales of a row] of BF16, F16 or F32, as
// f32. They must be in it. InvalidArgument (UNSUPPORTED_TENSOR), naming file,
// tensor and element: a scale that is not finite.
absl::StatusOr<std::vector<float>> ReadScaleRows(
    const SafetensorsFolder& weights, const std::string& name, int64_t begin,
    int64_t end);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_PACKED_MATRIX_H_
