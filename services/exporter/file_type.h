// general.file_type of a GGUF: what llama.cpp names a file of mostly one type.
#ifndef SERVICES_EXPORTER_FILE_TYPE_H_
#define SERVICES_EXPORTER_FILE_TYPE_H_

#include <cstdint>
#include <map>

#include "kernels/quant/grid.h"

namespace onegrid::exporter {

// llama.h, enum llama_ftype.
inline constexpr uint32_t kFileTypeQ4_0 = 2;
inline constexpr uint32_t kFileTypeQ8_0 = 7;
inline constexpr uint32_t kFileTypeQ2_0 = 41;

// Weights of the linears on each grid.
using GridWeights = std::map<const quant::Grid*, int64_t>;

// The type for the grid of most weights; of several with as many, int4_g32,
// then int2_g64.
inline uint32_t FileTypeOf(const GridWeights& weights) {
  const auto count = [&](const quant::Grid& grid) {
    const auto found = weights.find(&grid);
    return found == weights.end() ? 0 : found->second;
  };
  const int64_t q4_0 = count(quant::kInt4G32);
  const int64_t q2_0 = count(quant::kInt2G64);
  const int64_t q8_0 = count(quant::kInt8G32);
  if (q4_0 >= q2_0 && q4_0 >= q8_0) return kFileTypeQ4_0;
  return q2_0 >= q8_0 ? kFileTypeQ2_0 : kFileTypeQ8_0;
}

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_FILE_TYPE_H_
