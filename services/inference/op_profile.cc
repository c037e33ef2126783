#include "services/inference/op_profile.h"

#include <numeric>

namespace onegrid::inference {

const char* OpName(Op op) {
  static constexpr const char* kNames[kOps] = {
      "embed",    "norms",           "qkv",
      "rope",     "attention",       "attention output",
      "gate, up", "activation",      "down",
      "experts",  "per-layer input", "lora",
      "head"};
  return kNames[static_cast<size_t>(op)];
}

double OpProfile::total() const {
  return std::accumulate(seconds_.begin(), seconds_.end(), 0.0);
}

}  // namespace onegrid::inference
