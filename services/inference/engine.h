// The forward pass of Gemma on quantized weights, for several sequences at
// once, with their key/value caches.
#ifndef SERVICES_INFERENCE_ENGINE_H_
#define SERVICES_INFERENCE_ENGINE_H_

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/base/aligned_buffer.h"
#include "kernels/base/thread_pool.h"
#include "kernels/cpu/rope.h"
#include "kernels/cpu/top_products.h"
#include "services/inference/experts.h"
#include "services/inference/gemma_weights.h"
#include "services/inference/kv_cache.h"
#include "services/inference/linear_input.h"
#include "services/inference/logit_search.h"
#include "services/inference/lora.h"
#include "services/inference/lora_runner.h"
#include "services/inference/numerics.h"
#include "services/inference/op_profile.h"
#include "services/inference/per_layer_inputs.h"
#include "services/model/gemma_config.h"

namespace onegrid::inference {

struct EngineOptions {
  Numerics numerics;
  int max_sequences = 8;      // key/value caches held at once
  int max_context = 4096;     // tokens of one sequence
  int max_step_tokens = 512;  // tokens of one Forward over all sequences
  int max_rollback = 0;       // tokens that Truncate may take back
  int64_t prefix_bytes = 0;   // of keys and values kept for Restore
};

// How the head of a model that an engine computes so should be stored: split
// if TopLogits can make use of that.
cpu::PackedLinear::Storage HeadStorageFor(const Numerics& numerics);

// Tokens to append to one sequence in one Forward.
struct Chunk {
  int slot;                          // 0..max_sequences-1
  absl::Span<const int32_t> tokens;  // at least one
  int first_output;  // rows first_output..end are kept for Logits;
                     // tokens.size() keeps none
  // The sequence's, the same in all its chunks; null: the model as it is. Must
  // stay until Forward returns.
  const LoraAdapter* adapter = nullptr;
};

// Each row's result depends only on its own sequence, never on what else is in
// the step or on how its prompt was cut into chunks.
// Thread-compatible: one thread calls, the pool works.
class Engine {
 public:
  // Rows one call of Logits may ask for; bounds its memory.
  static constexpr int kMaxLogitRows = 16;

  // `weights` and `pool` must outlive the engine.
  // InvalidArgument: a limit below 1 or a context beyond the model's.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(
      const GemmaWeights& weights, const EngineOptions& options,
      kernels::ThreadPool& pool);

  // Runs all chunks, at most one per slot, max_step_tokens in all. Output rows
  // are numbered in chunk order. On error no sequence has changed.
  // InvalidArgument: a limit or the vocabulary exceeded. DataLoss: see
  // PerLayerInputs::Embed.
  absl::Status Forward(absl::Span<const Chunk> chunks);

  // Number of output rows of the last Forward.
  int output_rows() const { return output_rows_; }

  // Logits of output rows first .. first+count-1: [count, vocabulary]. Valid
  // and writable until the next call. count <= kMaxLogitRows.
  absl::Span<float> Logits(int first, int count);

  // The counts[i] largest logits of output row first + i, largest first, ties
  // by lower token: bit for bit those of Logits, for less work. Valid until the
  // next call. At most kMaxLogitRows counts, each from 1 to the vocabulary.
  // Empty: Logits is to be called instead, as it is faster for few rows and for
  // many logits of a row, and alone knows capped logits and f32 activations.
  absl::Span<const std::vector<cpu::TopProduct>> TopLogits(
      int first, absl::Span<const int> counts);
  // Whether TopLogits may use a sketch of the head.
  bool can_sketch_head() const { return top_ != nullptr && top_->has_sketch(); }
  // False while TopLogits learns from what it is asked for (logit_search.h).
  bool top_logits_learnt() const { return top_ == nullptr || top_->learnt(); }
  // Bytes of the head, or of what stood for it, that the last Logits or
  // TopLogits read.
  int64_t head_bytes_read() const { return head_bytes_read_; }

  // Tokens the slot's sequence holds.
  int length(int slot) const { return cache_.length(slot); }
  // Empties the slot's sequence.
  void Reset(int slot) { cache_.Reset(slot); }
  // Takes back a sequence's tokens from `length` on: at most max_rollback, and
  // no further below the greatest length it had.
  void Truncate(int slot, int length) { cache_.Truncate(slot, length); }
  // Begins an empty slot's sequence with tokens of which keys and values are
  // kept, and returns how many: at most tokens.size(), often fewer or none.
  // Only sequences of the same salt share. with_tail: also part of a page,
  // which takes kv_cache().block_bytes().
  int Restore(int slot, absl::Span<const int32_t> tokens,
              absl::string_view salt = "", bool with_tail = false) {
    return cache_.Restore(slot, tokens, salt, with_tail);
  }
  // Keeps what the slot's sequence, `tokens` or more, has filled for Restore,
  // as far as prefix_bytes go.
  void Share(int slot, absl::Span<const int32_t> tokens) {
    cache_.Share(slot, tokens);
  }
  // Makes slot `to` hold the same sequence as `from`.
  void Copy(int from, int to) { cache_.Copy(from, to); }

  // Adds the time of what follows to `profile`, which must outlive the engine;
  // nullptr: measures nothing.
  void set_profile(OpProfile* profile) { profile_ = profile; }

  const model::GemmaConfig& config() const { return weights_.config; }
  const EngineOptions& options() const { return options_; }
  // The keys and values held, their bytes, and what may be given up.
  KvCache& kv_cache() { return cache_; }
  const KvCache& kv_cache() const { return cache_; }
  // The most bytes all sequences together can take, and one of `tokens` tokens.
  int64_t kv_bytes_max() const {
    return cache_.bytes_max(options_.max_step_tokens);
  }
  int64_t sequence_bytes_max(int64_t tokens) const {
    return cache_.sequence_bytes_max(tokens, options_.max_step_tokens);
  }
  // Bytes of keys and values that a token at `position` attends to.
  int64_t kv_bytes_read(int64_t position) const {
    return cache_.bytes_read(position);
  }

 private:
  Engine(const GemmaWeights& weights, const EngineOptions& options,
         kernels::ThreadPool& pool);

  absl::Status Check(absl::Span<const Chunk> chunks) const;
  absl::Status Embed(absl::Span<const Chunk> chunks);
  // Goes on with these rows, at their positions.
  void SetRows(const std::vector<KvRows>& rows);
  // Norms x_ and projects it: q_, and k_ and v_ into the layer's cache.
  void Project(int layer, bool queries, bool keys_and_values);
  // branch_ = the attention's output. keys_and_values: those of this step's
  // rows are not in the cache yet.
  void Attention(int layer, bool keys_and_values);
  // Adds the norm of branch_ to x_, then that of the layer's MLP, or of MLP and
  // experts.
  void FeedForward(int layer);
  // The former; then branch_ = the MLP.
  void Mlp(int layer);
  // Adds the layer's own input to x_.
  void AddPerLayerInput(int layer);
  // out = norm(x) of this step's rows.
  void Norm(const float* x, const std::vector<float>& weight, float* out);
  // x_ += norm(branch_).
  void AddNorm(const std::vector<float>& weight);
  struct Product {
    LoraTarget target;
    const cpu::PackedLinear* weights;  // may be null: nothing is multiplied
    float* out;
  };
  // A step of x_: into input_ in codes, if all `products`, some maybe null,
  // take them and nothing else needs floats; else into normed_, and false.
  bool NormStream(cpu::NormStep step, cpu::CodeBits bits,
                  std::initializer_list<const cpu::PackedLinear*> products);
  // Several products of x [M, k], which is quantized once, in `layer`; of
  // input_ if x is null.
  void Linear(Op op, int layer, const float* x, int64_t k, cpu::CodeBits bits,
              std::initializer_list<Product> products);
  // Norms of q_, k_ and v_, positions of q_ and k_.
  void PlaceQueries(int layer);
  void PlaceKeysAndValues(int layer);
  const cpu::RopeAngles& Angles(int layer) const;
  // Whether some rows have no output.
  bool HasOtherRows(absl::Span<const Chunk> chunks) const;
  // Keeps the rows that have an output only, and says which those are.
  std::vector<KvRows> DropOtherRows(absl::Span<const Chunk> chunks);
  void KeepOutputs();

  const GemmaWeights& weights_;
  const EngineOptions options_;
  kernels::ThreadPool& pool_;
  KvCache cache_;
  LinearInput input_;
  LinearInput active_;  // of down
  LoraRunner lora_;
  cpu::RopeAngles angles_global_;
  cpu::RopeAngles angles_local_;
  std::unique_ptr<Experts> experts_;           // may be null
  std::unique_ptr<PerLayerInputs> per_layer_;  // may be null
  // The last layer that has keys and values of its own: behind these only rows
  // with an output matter.
  int last_kv_layer_;

  OpProfile* profile_ = nullptr;

  // Of this step: each slot's adapter, its rows, and those that are still
  // computed.
  std::vector<const LoraAdapter*> slot_adapters_;
  std::vector<KvRows> chunk_rows_;
  std::vector<KvRows> live_rows_;
  int rows_ = 0;  // tokens of live_rows_, M below
  int output_rows_ = 0;
  // Work space, sized for max_step_tokens rows.
  kernels::AlignedBuffer<float> x_;         // [M, hidden] residual stream
  kernels::AlignedBuffer<float> normed_;    // [M, hidden]
  kernels::AlignedBuffer<float> q_;         // [M, heads, head_dim]
  kernels::AlignedBuffer<float> k_;         // [M, kv_heads, head_dim]
  kernels::AlignedBuffer<float> v_;         // [M, kv_heads, head_dim]
  std::vector<float> ones_;                 // [head_dim], v_'s norm
  kernels::AlignedBuffer<float> attended_;  // [M, heads, head_dim]
  kernels::AlignedBuffer<float> branch_;    // [M, hidden]
  kernels::AlignedBuffer<float> gate_;      // [M, ff]
  kernels::AlignedBuffer<float> up_;        // [M, ff]
  kernels::AlignedBuffer<float> outputs_;   // [M, hidden], final norm applied
  kernels::AlignedBuffer<float> logits_;    // [kMaxLogitRows, vocabulary]
  std::unique_ptr<LogitSearch> top_;        // may be null
  int64_t head_bytes_read_ = 0;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_ENGINE_H_
