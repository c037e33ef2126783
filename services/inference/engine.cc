#include "services/inference/engine.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "kernels/cpu/elementwise.h"
#include "services/common/error_info.h"

namespace onegrid::inference {
namespace {

absl::Status Invalid(absl::string_view message) {
  return common::MakeError(absl::StatusCode::kInvalidArgument,
                           "INVALID_REQUEST", message);
}

// Where 16 instead of 8 bits of the input take away most error for their work:
// on 1,536 tokens of plain text, against f32, mean KL falls from 0.0046 to
// 0.0032 and top-1 agreement rises from 95.8 to 97.0 %, for 18 % more work in
// the body. In the down projection they would bring 0.0009 for 23 %, elsewhere
// less.
constexpr cpu::CodeBits kQkvBits = cpu::CodeBits::k16;
constexpr cpu::CodeBits kHeadBits = cpu::CodeBits::k16;
constexpr cpu::CodeBits kOtherBits = cpu::CodeBits::k8;

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(
    const GemmaWeights& weights, const EngineOptions& options,
    kernels::ThreadPool& pool) {
  if (options.max_sequences < 1 || options.max_context < 1) {
    return Invalid(absl::StrCat("max_sequences is ", options.max_sequences,
                                " and max_context ", options.max_context,
                                ", expected 1 or more"));
  }
  const int64_t head_dim = weights.config.head_dim;
  if (head_dim < 32 || head_dim > cpu::kMaxHeadDim ||
      (head_dim & (head_dim - 1)) != 0) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_ARCHITECTURE",
        absl::StrCat("the head size is ", head_dim,
                     ", expected a power of two from 32 to ",
                     cpu::kMaxHeadDim));
  }
  if (options.max_context > weights.config.context_length) {
    return Invalid(absl::StrCat("max_context is ", options.max_context,
                                ", the model's is ",
                                weights.config.context_length));
  }
  if (options.max_step_tokens < options.max_sequences) {
    return Invalid(absl::StrCat("max_step_tokens is ", options.max_step_tokens,
                                ", below max_sequences ",
                                options.max_sequences));
  }
  return std::unique_ptr<Engine>(new Engine(weights, options, pool));
}

Engine::Engine(const GemmaWeights& weights, const EngineOptions& options,
               kernels::ThreadPool& pool)
    : weights_(weights),
      options_(options),
      pool_(pool),
      cache_(weights.config, options.numerics, options.max_sequences,
             options.max_context, options.max_rollback),
      input_(options.numerics, pool),
      angles_global_(weights.config.head_dim, weights.config.rope_theta_global,
                     weights.config.rope_scaling_factor),
      angles_local_(weights.config.head_dim, weights.config.rope_theta_local,
                    /*position_scale=*/1) {
  const model::GemmaConfig& c = weights.config;
  const size_t m = options.max_step_tokens;
  const auto floats = [](size_t n) { return kernels::AlignedBuffer<float>(n); };
  x_ = floats(m * c.hidden);
  normed_ = floats(m * c.hidden);
  q_ = floats(m * c.heads * c.head_dim);
  k_ = floats(m * c.kv_heads * c.head_dim);
  v_ = floats(m * c.kv_heads * c.head_dim);
  attended_ = floats(m * c.heads * c.head_dim);
  branch_ = floats(m * c.hidden);
  gate_ = floats(m * c.ff);
  up_ = floats(m * c.ff);
  outputs_ = floats(m * c.hidden);
  logits_ = floats(size_t{kMaxLogitRows} * c.vocab_size);
}

absl::Status Engine::Check(absl::Span<const Chunk> chunks) const {
  std::vector<bool> used(options_.max_sequences, false);
  int64_t total = 0;
  for (const Chunk& chunk : chunks) {
    if (chunk.slot < 0 || chunk.slot >= options_.max_sequences ||
        used[chunk.slot]) {
      return Invalid(absl::StrCat("slot ", chunk.slot,
                                  " is unknown or used twice in a step"));
    }
    used[chunk.slot] = true;
    const int64_t tokens =
        length(chunk.slot) + static_cast<int64_t>(chunk.tokens.size());
    if (chunk.tokens.empty() || tokens > options_.max_context) {
      return Invalid(absl::StrCat("a chunk would make a sequence of ", tokens,
                                  " tokens, at most ", options_.max_context));
    }
    for (int32_t token : chunk.tokens) {
      if (token < 0 || token >= config().vocab_size) {
        return Invalid(absl::StrCat("token id ", token,
                                    " is outside the vocabulary of ",
                                    config().vocab_size));
      }
    }
    total += chunk.tokens.size();
  }
  if (total > options_.max_step_tokens) {
    return Invalid(absl::StrCat("a step of ", total, " tokens, at most ",
                                options_.max_step_tokens));
  }
  return absl::OkStatus();
}

absl::Status Engine::Forward(absl::Span<const Chunk> chunks) {
  const absl::Status status = Check(chunks);
  if (!status.ok()) return status;
  Embed(chunks);
  SetPositions(chunks);
  for (int layer = 0; layer < config().layers; ++layer) {
    Attention(layer);
    FeedForward(layer);
  }
  cache_.Advance(chunk_rows_);
  KeepOutputs(chunks);
  return absl::OkStatus();
}

void Engine::SetPositions(absl::Span<const Chunk> chunks) {
  chunk_rows_.clear();
  std::vector<int32_t> positions;
  for (const Chunk& chunk : chunks) {
    const int count = static_cast<int>(chunk.tokens.size());
    chunk_rows_.push_back({chunk.slot, count});
    for (int i = 0; i < count; ++i) {
      positions.push_back(length(chunk.slot) + i);
    }
  }
  rows_ = static_cast<int>(positions.size());
  angles_global_.SetPositions(positions, pool_);
  angles_local_.SetPositions(positions, pool_);
}

void Engine::Embed(absl::Span<const Chunk> chunks) {
  const OpScope scope(profile_, Op::kEmbed);
  const int64_t hidden = config().hidden;
  const float scale = std::sqrt(static_cast<float>(hidden));
  float* row = x_.data();
  for (const Chunk& chunk : chunks) {
    for (int32_t token : chunk.tokens) {
      weights_.embedding.DequantizeRow(token, absl::MakeSpan(row, hidden));
      for (int64_t i = 0; i < hidden; ++i) row[i] *= scale;
      row += hidden;
    }
  }
}

void Engine::Norm(const float* x, const std::vector<float>& weight,
                  float* out) {
  const OpScope scope(profile_, Op::kNorms);
  cpu::RmsNorm(x, weight.data(), rows_, config().hidden,
               static_cast<float>(config().rms_eps), out, pool_,
               options_.numerics.isa);
}

void Engine::AddNorm(const std::vector<float>& weight) {
  const OpScope scope(profile_, Op::kNorms);
  cpu::RmsNormAdd(branch_.data(), weight.data(), rows_, config().hidden,
                  static_cast<float>(config().rms_eps), x_.data(), pool_,
                  options_.numerics.isa);
}

void Engine::Linear(Op op, const float* x, int64_t k, cpu::CodeBits bits,
                    std::initializer_list<Product> products) {
  const OpScope scope(profile_, op);
  input_.Set(x, rows_, k, bits);
  for (const Product& product : products) {
    input_.Multiply(*product.weights, product.out);
  }
}

void Engine::PlaceQueriesAndKeys(int layer) {
  const OpScope scope(profile_, Op::kRope);
  const model::GemmaConfig& c = config();
  const LayerWeights& w = weights_.layers[layer];
  const kernels::Isa isa = options_.numerics.isa;
  const float eps = static_cast<float>(c.rms_eps);
  const int64_t m = rows_;
  cpu::RmsNorm(q_.data(), w.q_norm.data(), m * c.heads, c.head_dim, eps,
               q_.data(), pool_, isa);
  cpu::RmsNorm(k_.data(), w.k_norm.data(), m * c.kv_heads, c.head_dim, eps,
               k_.data(), pool_, isa);
  const cpu::RopeAngles& angles =
      c.IsGlobalLayer(layer) ? angles_global_ : angles_local_;
  cpu::RopeNeox(angles, c.heads, q_.data(), pool_, isa);
  cpu::RopeNeox(angles, c.kv_heads, k_.data(), pool_, isa);
}

void Engine::Attention(int layer) {
  const model::GemmaConfig& c = config();
  const LayerWeights& w = weights_.layers[layer];
  Norm(x_.data(), w.attn_norm, normed_.data());
  Linear(Op::kQkv, normed_.data(), c.hidden, kQkvBits,
         {{&w.q, q_.data()}, {&w.k, k_.data()}, {&w.v, v_.data()}});
  PlaceQueriesAndKeys(layer);
  {
    const OpScope scope(profile_, Op::kAttention);
    cache_.AppendAndAttend(layer, chunk_rows_, q_.data(), k_.data(), v_.data(),
                           attended_.data(), pool_);
  }
  Linear(Op::kAttentionOutput, attended_.data(), c.heads * c.head_dim,
         kOtherBits, {{&w.o, branch_.data()}});
  AddNorm(w.post_attn_norm);
}

void Engine::FeedForward(int layer) {
  const model::GemmaConfig& c = config();
  const LayerWeights& w = weights_.layers[layer];
  Norm(x_.data(), w.ffn_norm, normed_.data());
  Linear(Op::kGateUp, normed_.data(), c.hidden, kOtherBits,
         {{&w.gate, gate_.data()}, {&w.up, up_.data()}});
  {
    const OpScope scope(profile_, Op::kActivation);
    cpu::GeluMul(gate_.data(), up_.data(), rows_ * c.ff, gate_.data(), pool_,
                 options_.numerics.isa);
  }
  Linear(Op::kDown, gate_.data(), c.ff, kOtherBits,
         {{&w.down, branch_.data()}});
  AddNorm(w.post_ffw_norm);
}

void Engine::KeepOutputs(absl::Span<const Chunk> chunks) {
  const model::GemmaConfig& c = config();
  // Wanted rows move to the front of x_, which the next step overwrites.
  output_rows_ = 0;
  int64_t row = 0;
  for (const Chunk& chunk : chunks) {
    const int count = static_cast<int>(chunk.tokens.size());
    for (int i = std::max(chunk.first_output, 0); i < count; ++i) {
      std::memmove(x_.data() + output_rows_ * c.hidden,
                   x_.data() + (row + i) * c.hidden, c.hidden * sizeof(float));
      ++output_rows_;
    }
    row += count;
  }
  if (output_rows_ == 0) return;
  cpu::RmsNorm(x_.data(), weights_.output_norm.data(), output_rows_, c.hidden,
               static_cast<float>(c.rms_eps), outputs_.data(), pool_,
               options_.numerics.isa);
}

absl::Span<float> Engine::Logits(int first, int count) {
  const OpScope scope(profile_, Op::kHead);
  const model::GemmaConfig& c = config();
  input_.Set(outputs_.data() + int64_t{first} * c.hidden, count, c.hidden,
             kHeadBits);
  input_.Multiply(weights_.embedding, logits_.data());
  return absl::MakeSpan(logits_.data(), int64_t{count} * c.vocab_size);
}

}  // namespace onegrid::inference
