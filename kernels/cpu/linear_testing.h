#ifndef KERNELS_CPU_LINEAR_TESTING_H_
#define KERNELS_CPU_LINEAR_TESTING_H_

// What tests of linears and of their weights have in common.

#include <cstdint>
#include <vector>

#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "kernels/quant/grid.h"

namespace onegrid::cpu {

inline constexpr const quant::Grid* kGrids[] = {
    &quant::kInt2G64, &quant::kInt4G32, &quant::kInt8G32};

// The codes that a file of a grid's blocks may hold.
struct CodeRange {
  int least, most;
};
CodeRange CodesOf(const quant::Grid& grid);

// Any codes that a file may hold.
quant::GridMatrix Random(const quant::Grid& grid, int64_t n, int64_t k,
                         uint32_t seed);

// Random values of bf16, and the bytes of a file that hold them.
std::vector<float> RandomBf16(int64_t count, std::vector<uint8_t>* bytes);

// Blocks as a file may hold them: PackBlocks takes what the grid writes, which
// is one code less of int2 and int8.
std::vector<uint8_t> Blocks(const quant::GridMatrix& w);
PackedLinear Pack(const quant::GridMatrix& w, kernels::ThreadPool& pool);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_LINEAR_TESTING_H_
