// A LoRA adapter as the engine runs it: y = W x + scale * B (A x).
#ifndef SERVICES_INFERENCE_LORA_H_
#define SERVICES_INFERENCE_LORA_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/packed_linear.h"
#include "services/model/adapter.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

// The linears of a layer that can be adapted.
enum class LoraTarget { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kLoraTargets = 7;

// One linear's matrices. Each value is the sum of two of bf16, the second of
// which is what the first one lacks: that is 2^-16 of the value at most, and
// the kernels of bf16 weights serve.
struct LoraPair {
  // Rank as it is laid out: a multiple of 16, rows beyond the rank are zero.
  int64_t rank;
  cpu::PackedLinear a;  // [2 * rank, in]: first parts, then second parts
  cpu::PackedLinear b;  // [out, 2 * rank], the same side by side; times scale
};

// Immutable, so safe to share.
class LoraAdapter {
 public:
  // Copies `adapter`, which is of a model of `config` and has the digest
  // `sha256`. InvalidArgument (UNSUPPORTED_ADAPTER; item): a linear that is
  // none of LoraTarget, or a value beyond bf16's range.
  static absl::StatusOr<LoraAdapter> Create(const model::Adapter& adapter,
                                            const std::string& sha256,
                                            const model::GemmaConfig& config,
                                            kernels::ThreadPool& pool);

  // Null: the linear is as the model has it.
  const LoraPair* Find(int layer, LoraTarget target) const {
    const auto& pair = layers_[layer][static_cast<size_t>(target)];
    return pair.has_value() ? &*pair : nullptr;
  }

  const std::string& sha256() const { return sha256_; }
  int linears() const { return linears_; }
  int64_t max_rank() const { return max_rank_; }  // as trained
  int64_t bytes() const { return bytes_; }

 private:
  LoraAdapter() = default;

  std::vector<std::array<std::optional<LoraPair>, kLoraTargets>> layers_;
  std::string sha256_;
  int linears_ = 0;
  int64_t max_rank_ = 0;
  int64_t bytes_ = 0;
};

// Of TaskPlace::cache_salt: equal only for the same adapter, or none, and the
// same salt of the caller.
std::string SharingSalt(const LoraAdapter* adapter, absl::string_view salt);

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_LORA_H_
