// Where the time of the engine goes, by operation.
#ifndef SERVICES_INFERENCE_OP_PROFILE_H_
#define SERVICES_INFERENCE_OP_PROFILE_H_

#include <array>
#include <chrono>
#include <cstddef>

namespace onegrid::inference {

// With the quantization of its input, where it has one; that of normed rows is
// in kNorms where these are never floats.
enum class Op {
  kEmbed,
  kNorms,
  kQkv,
  kRope,  // and the norms of queries and keys
  kAttention,
  kAttentionOutput,
  kGateUp,      // and the activation where it is made along with them
  kActivation,  // elsewhere
  kDown,
  kExperts,        // with their router
  kPerLayerInput,  // and its embedding
  kLora,           // what adapters add to all linears
  kHead,
};
inline constexpr size_t kOps = 13;

// "embed", "norms", "qkv", "rope", "attention", "attention output", "gate, up",
// "activation", "down", "experts", "per-layer input", "lora", "head".
const char* OpName(Op op);

// Seconds by operation. Thread-compatible.
class OpProfile {
 public:
  void Add(Op op, double seconds) {
    seconds_[static_cast<size_t>(op)] += seconds;
  }
  double seconds(Op op) const { return seconds_[static_cast<size_t>(op)]; }
  double total() const;

 private:
  std::array<double, kOps> seconds_ = {};
};

// Adds the time from here to the end of the scope, unless `profile` is null.
class OpScope {
 public:
  OpScope(OpProfile* profile, Op op) : profile_(profile), op_(op) {
    if (profile_ != nullptr) start_ = Clock::now();
  }
  ~OpScope() {
    if (profile_ == nullptr) return;
    profile_->Add(op_,
                  std::chrono::duration<double>(Clock::now() - start_).count());
  }
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  using Clock = std::chrono::steady_clock;

  OpProfile* const profile_;
  const Op op_;
  Clock::time_point start_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OP_PROFILE_H_
