#include "services/inference/lora_runner.h"

#include <algorithm>

#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/packed_linear.h"

namespace onegrid::inference {
namespace {

float* Sized(std::vector<float>& buffer, size_t count) {
  if (buffer.size() < count) buffer.resize(count);
  return buffer.data();
}

}  // namespace

void LoraRunner::SetRows(absl::Span<const LoraAdapter* const> rows) {
  groups_.clear();
  for (size_t row = 0; row < rows.size(); ++row) {
    if (rows[row] == nullptr) continue;
    auto group =
        std::find_if(groups_.begin(), groups_.end(),
                     [&](const Group& g) { return g.adapter == rows[row]; });
    if (group == groups_.end()) {
      groups_.push_back({rows[row], {}});
      group = groups_.end() - 1;
    }
    group->rows.push_back(static_cast<int64_t>(row));
  }
}

void LoraRunner::AddTo(int layer, LoraTarget target, const float* x, int64_t k,
                       int64_t n, float* out) {
  for (const Group& group : groups_) {
    const LoraPair* pair = group.adapter->Find(layer, target);
    if (pair != nullptr) Add(*pair, group.rows, x, k, n, out);
  }
}

void LoraRunner::Add(const LoraPair& pair, const std::vector<int64_t>& rows,
                     const float* x, int64_t k, int64_t n, float* out) {
  const auto m = static_cast<int64_t>(rows.size());
  float* inputs = Sized(inputs_, m * k);
  for (int64_t i = 0; i < m; ++i) {
    std::copy_n(x + rows[i] * k, k, inputs + i * k);
  }
  const int64_t rank = pair.rank;
  float* parts = Sized(parts_, m * 2 * rank);
  cpu::LinearF32(inputs, m, pair.a, parts, pool_, isa_);
  for (int64_t i = 0; i < m; ++i) {
    float* part = parts + i * 2 * rank;
    for (int64_t r = 0; r < rank; ++r) {
      part[r] = part[rank + r] = part[r] + part[rank + r];
    }
  }
  float* deltas = Sized(deltas_, m * n);
  cpu::LinearF32(parts, m, pair.b, deltas, pool_, isa_);
  for (int64_t i = 0; i < m; ++i) {
    float* to = out + rows[i] * n;
    cpu::Add(to, deltas + i * n, n, to, pool_, isa_);
  }
}

}  // namespace onegrid::inference
