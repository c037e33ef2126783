#include "services/finetuner/attention.h"

#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/types/span.h"
#include "kernels/quant/int8_activations.h"
#include "services/finetuner/row_ops.h"
#include "services/finetuner/rows.h"

namespace onegrid::finetuner {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr int64_t kTokenGrain = 16;
constexpr int64_t kRowGrain = 64;

// Tensors of one bucket, n slots of `padded` tokens each: q and o are
// [n * kv_heads, group * padded, head_dim] with group = heads / kv_heads, k and
// v [n * kv_heads, padded, head_dim].
struct BucketTensors {
  at::Tensor q, k, v;
};

// Row of a token's head in q viewed as [rows, head_dim].
int64_t QueryRow(const AttentionSpec& spec, const AttentionLayout::Token& token,
                 int64_t head, int64_t padded) {
  const int64_t group = spec.heads / spec.kv_heads;
  const int64_t batch = token.slot * spec.kv_heads + head / group;
  return (batch * group + head % group) * padded + token.position;
}

int64_t KeyRow(const AttentionSpec& spec, const AttentionLayout::Token& token,
               int64_t kv_head, int64_t padded) {
  return (token.slot * spec.kv_heads + kv_head) * padded + token.position;
}

at::Tensor Flat(const at::Tensor& t) { return t.view({-1, t.size(-1)}); }

// Norm weights of values: they have none.
std::vector<float> Ones(int64_t d) {
  return std::vector<float>(static_cast<size_t>(d), 1.0f);
}

// Norm and rotation of every query and key row, and the gather of all three.
// kv: the tensor with keys and values.
BucketTensors Gather(const at::Tensor& qkv, const at::Tensor& kv,
                     const AttentionSpec& spec,
                     const AttentionLayout::Bucket& bucket, bool as_served) {
  const int64_t d = spec.head_dim, half = d / 2, padded = bucket.padded;
  const int64_t batch =
      static_cast<int64_t>(bucket.lengths.size()) * spec.kv_heads;
  const int64_t group = spec.heads / spec.kv_heads;
  BucketTensors out{at::zeros({batch, group * padded, d}, qkv.options()),
                    at::zeros({batch, padded, d}, qkv.options()),
                    at::zeros({batch, padded, d}, qkv.options())};
  const Rows in(qkv), kv_in(kv);
  const Rows q(Flat(out.q)), k(Flat(out.k)), v(Flat(out.v));
  const float* q_norm = spec.q_norm.const_data_ptr<float>();
  const float* k_norm = spec.k_norm.const_data_ptr<float>();
  const std::vector<float> ones = Ones(d);
  const float* cosines = spec.rope.cosines.const_data_ptr<float>();
  const float* sines = spec.rope.sines.const_data_ptr<float>();
  const float eps = static_cast<float>(spec.eps);
  at::parallel_for(
      0, static_cast<int64_t>(bucket.tokens.size()), kTokenGrain,
      [&](int64_t begin, int64_t end) {
        std::vector<float> a(d), b(d);
        for (int64_t t = begin; t < end; ++t) {
          const AttentionLayout::Token& token = bucket.tokens[t];
          const int64_t angle = token.position * half;
          for (int64_t h = 0; h < spec.heads; ++h) {
            RmsNormRow(in.Load(token.row, h * d, d, a.data()), q_norm, d, eps,
                       b.data());
            RopeRow(cosines + angle, sines + angle, half, 1.0f, b.data());
            q.Store(QueryRow(spec, token, h, padded), 0, d, b.data());
          }
          for (int64_t h = 0; h < spec.kv_heads; ++h) {
            const int64_t row = KeyRow(spec, token, h, padded);
            RmsNormRow(
                kv_in.Load(token.row, spec.k_column + h * d, d, a.data()),
                k_norm, d, eps, b.data());
            RopeRow(cosines + angle, sines + angle, half, 1.0f, b.data());
            if (as_served) quant::FakeQuantizeKey(absl::MakeSpan(b));
            k.Store(row, 0, d, b.data());
            const float* value =
                kv_in.Load(token.row, spec.v_column + h * d, d, a.data());
            if (spec.norm_values) {
              RmsNormRow(value, ones.data(), d, eps, b.data());
            } else {
              std::copy(value, value + d, b.data());
            }
            if (as_served) quant::FakeQuantizeInt8(absl::MakeSpan(b));
            v.Store(row, 0, d, b.data());
          }
        }
      });
  return out;
}

// scores [n * kv_heads, group * padded, padded] -> probabilities, in place.
void Softmax(const AttentionSpec& spec, const AttentionLayout::Bucket& bucket,
             const at::Tensor& scores) {
  const int64_t padded = bucket.padded;
  const Rows rows(Flat(scores));
  at::parallel_for(0, scores.size(0) * scores.size(1), kRowGrain,
                   [&](int64_t begin, int64_t end) {
                     std::vector<float> a(padded);
                     for (int64_t r = begin; r < end; ++r) {
                       const int64_t position = r % padded;
                       const int64_t slot = r / (spec.heads * padded);
                       if (position >= bucket.lengths[slot]) {
                         rows.StoreZeros(r, 0, padded);
                         continue;
                       }
                       const float* in = rows.Load(r, 0, padded, a.data());
                       if (in != a.data()) std::copy(in, in + padded, a.data());
                       MaskedSoftmaxRow(
                           std::max<int64_t>(0, position - spec.window + 1),
                           position + 1, padded, static_cast<float>(spec.scale),
                           a.data());
                       rows.Store(r, 0, padded, a.data());
                     }
                   });
}

// d_probabilities -> d_scores, in place.
void SoftmaxGrad(const AttentionSpec& spec, const at::Tensor& probabilities,
                 const at::Tensor& grad) {
  const int64_t n = grad.size(2);
  const Rows p_rows(Flat(probabilities)), g_rows(Flat(grad));
  at::parallel_for(0, grad.size(0) * grad.size(1), kRowGrain,
                   [&](int64_t begin, int64_t end) {
                     std::vector<float> a(n), b(n);
                     for (int64_t r = begin; r < end; ++r) {
                       const float* in = g_rows.Load(r, 0, n, b.data());
                       if (in != b.data()) std::copy(in, in + n, b.data());
                       SoftmaxGradRow(p_rows.Load(r, 0, n, a.data()), n,
                                      static_cast<float>(spec.scale), b.data());
                       g_rows.Store(r, 0, n, b.data());
                     }
                   });
}

// Copies between rows of the packed sequence [T, heads * head_dim] and q-shaped
// rows; `scatter` goes to the packed sequence.
void CopyHeads(const AttentionSpec& spec, const AttentionLayout::Bucket& bucket,
               const at::Tensor& packed, const at::Tensor& padded_heads,
               bool scatter) {
  const int64_t d = spec.head_dim;
  const Rows packed_rows(packed), head_rows(Flat(padded_heads));
  at::parallel_for(
      0, static_cast<int64_t>(bucket.tokens.size()), kTokenGrain,
      [&](int64_t begin, int64_t end) {
        std::vector<float> a(d);
        for (int64_t t = begin; t < end; ++t) {
          const AttentionLayout::Token& token = bucket.tokens[t];
          for (int64_t h = 0; h < spec.heads; ++h) {
            const int64_t row = QueryRow(spec, token, h, bucket.padded);
            if (scatter) {
              packed_rows.Store(token.row, h * d, d,
                                head_rows.Load(row, 0, d, a.data()));
            } else {
              head_rows.Store(row, 0, d,
                              packed_rows.Load(token.row, h * d, d, a.data()));
            }
          }
        }
      });
}

// Takes gradients of the rotated, normed queries back to their projection.
void ScatterQueryGrad(const AttentionSpec& spec,
                      const AttentionLayout::Bucket& bucket,
                      const at::Tensor& qkv, const at::Tensor& grad_q,
                      const at::Tensor& d_qkv) {
  const int64_t d = spec.head_dim, half = d / 2, padded = bucket.padded;
  const Rows in(qkv), out(d_qkv), dq(Flat(grad_q));
  const float* norm = spec.q_norm.const_data_ptr<float>();
  const float* cosines = spec.rope.cosines.const_data_ptr<float>();
  const float* sines = spec.rope.sines.const_data_ptr<float>();
  const float eps = static_cast<float>(spec.eps);
  at::parallel_for(
      0, static_cast<int64_t>(bucket.tokens.size()), kTokenGrain,
      [&](int64_t begin, int64_t end) {
        std::vector<float> a(d), b(d), c(d);
        for (int64_t t = begin; t < end; ++t) {
          const AttentionLayout::Token& token = bucket.tokens[t];
          const int64_t angle = token.position * half;
          for (int64_t h = 0; h < spec.heads; ++h) {
            const float* g =
                dq.Load(QueryRow(spec, token, h, padded), 0, d, b.data());
            if (g != b.data()) std::copy(g, g + d, b.data());
            RopeRow(cosines + angle, sines + angle, half, -1.0f, b.data());
            const float* x = in.Load(token.row, h * d, d, a.data());
            const float r = RmsNormRow(x, norm, d, eps, c.data());
            RmsNormGradRow(x, norm, b.data(), r, d, c.data());
            out.Store(token.row, h * d, d, c.data());
          }
        }
      });
}

// The same of keys and values.
void ScatterKvGrad(const AttentionSpec& spec,
                   const AttentionLayout::Bucket& bucket, const at::Tensor& kv,
                   const BucketTensors& grad, const at::Tensor& d_kv) {
  const int64_t d = spec.head_dim, half = d / 2, padded = bucket.padded;
  const Rows in(kv), out(d_kv), dk(Flat(grad.k)), dv(Flat(grad.v));
  const float* norm = spec.k_norm.const_data_ptr<float>();
  const std::vector<float> ones = Ones(d);
  const float* cosines = spec.rope.cosines.const_data_ptr<float>();
  const float* sines = spec.rope.sines.const_data_ptr<float>();
  const float eps = static_cast<float>(spec.eps);
  at::parallel_for(
      0, static_cast<int64_t>(bucket.tokens.size()), kTokenGrain,
      [&](int64_t begin, int64_t end) {
        std::vector<float> a(d), b(d), c(d), e(d);
        for (int64_t t = begin; t < end; ++t) {
          const AttentionLayout::Token& token = bucket.tokens[t];
          const int64_t angle = token.position * half;
          for (int64_t h = 0; h < spec.kv_heads; ++h) {
            const int64_t row = KeyRow(spec, token, h, padded);
            const int64_t k_column = spec.k_column + h * d;
            const int64_t v_column = spec.v_column + h * d;
            const float* g = dk.Load(row, 0, d, b.data());
            if (g != b.data()) std::copy(g, g + d, b.data());
            RopeRow(cosines + angle, sines + angle, half, -1.0f, b.data());
            const float* x = in.Load(token.row, k_column, d, a.data());
            const float r = RmsNormRow(x, norm, d, eps, c.data());
            RmsNormGradRow(x, norm, b.data(), r, d, c.data());
            g = dv.Load(row, 0, d, b.data());
            if (spec.norm_values) {
              x = in.Load(token.row, v_column, d, a.data());
              const float s = RmsNormRow(x, ones.data(), d, eps, e.data());
              RmsNormGradRow(x, ones.data(), g, s, d, e.data());
              g = e.data();
            }
            if (v_column == k_column) {  // One projection gives both.
              for (int64_t i = 0; i < d; ++i) c[i] += g[i];
            } else {
              out.Store(token.row, v_column, d, g);
            }
            out.Store(token.row, k_column, d, c.data());
          }
        }
      });
}

class AttentionFunction : public Function<AttentionFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv,
                            const at::Tensor& kv, bool own,
                            const AttentionSpec* spec,
                            const AttentionLayout* layout, bool as_served) {
    at::Tensor out =
        at::empty({qkv.size(0), spec->heads * spec->head_dim}, qkv.options());
    variable_list saved = {qkv};
    if (!own) saved.push_back(kv);
    for (const AttentionLayout::Bucket& bucket : layout->buckets) {
      const BucketTensors x = Gather(qkv, kv, *spec, bucket, as_served);
      at::Tensor p = at::bmm(x.q, x.k.transpose(1, 2));
      Softmax(*spec, bucket, p);
      CopyHeads(*spec, bucket, out, at::bmm(p, x.v), /*scatter=*/true);
      saved.insert(saved.end(), {x.q, x.k, x.v, p});
    }
    if (qkv.requires_grad() || kv.requires_grad()) {
      ctx->save_for_backward(saved);
    }
    ctx->saved_data["own"] = own;
    ctx->saved_data["spec"] = reinterpret_cast<int64_t>(spec);
    ctx->saved_data["layout"] = reinterpret_cast<int64_t>(layout);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto* spec =
        reinterpret_cast<const AttentionSpec*>(ctx->saved_data["spec"].toInt());
    const auto* layout = reinterpret_cast<const AttentionLayout*>(
        ctx->saved_data["layout"].toInt());
    const bool own = ctx->saved_data["own"].toBool();
    const variable_list saved = ctx->get_saved_variables();
    const at::Tensor& qkv = saved[0];
    const at::Tensor& kv = own ? qkv : saved[1];
    const at::Tensor d_out = grads[0].contiguous();
    at::Tensor d_qkv = at::empty(qkv.sizes(), qkv.options());
    at::Tensor d_kv = own ? d_qkv : at::zeros(kv.sizes(), kv.options());
    size_t next = own ? 1 : 2;
    for (const AttentionLayout::Bucket& bucket : layout->buckets) {
      const at::Tensor &q = saved[next], &k = saved[next + 1],
                       &v = saved[next + 2], &p = saved[next + 3];
      next += 4;
      at::Tensor d_o = at::zeros(q.sizes(), q.options());
      CopyHeads(*spec, bucket, d_out, d_o, /*scatter=*/false);
      at::Tensor d_s = at::bmm(d_o, v.transpose(1, 2));
      SoftmaxGrad(*spec, p, d_s);
      const BucketTensors grad{at::bmm(d_s, k), at::bmm(d_s.transpose(1, 2), q),
                               at::bmm(p.transpose(1, 2), d_o)};
      ScatterQueryGrad(*spec, bucket, qkv, grad.q, d_qkv);
      ScatterKvGrad(*spec, bucket, kv, grad, d_kv);
    }
    return {d_qkv,        own ? at::Tensor() : d_kv,
            at::Tensor(), at::Tensor(),
            at::Tensor(), at::Tensor()};
  }
};

}  // namespace

AttentionLayout MakeAttentionLayout(const PackedSequence& sequence) {
  AttentionLayout layout;
  for (const SegmentBucket& segments : BucketSegments(sequence)) {
    AttentionLayout::Bucket bucket;
    bucket.padded = segments.padded;
    for (const int64_t s : segments.segments) {
      const int64_t start = sequence.segment_starts[s];
      const int64_t length = sequence.segment_starts[s + 1] - start;
      const int64_t slot = static_cast<int64_t>(bucket.lengths.size());
      bucket.lengths.push_back(length);
      for (int64_t i = 0; i < length; ++i) {
        bucket.tokens.push_back({start + i, slot, i});
      }
    }
    layout.buckets.push_back(std::move(bucket));
  }
  return layout;
}

RopeTable MakeRopeTable(int64_t positions, int64_t head_dim, double theta,
                        double scaling_factor, int64_t pairs) {
  const int64_t half = head_dim / 2;
  RopeTable table{at::empty({positions, half}, at::kFloat),
                  at::empty({positions, half}, at::kFloat)};
  float* cosines = table.cosines.mutable_data_ptr<float>();
  float* sines = table.sines.mutable_data_ptr<float>();
  for (int64_t j = 0; j < half; ++j) {
    const double frequency =
        pairs > 0 && j >= pairs
            ? 0
            : std::pow(theta, -2.0 * j / head_dim) / scaling_factor;
    for (int64_t p = 0; p < positions; ++p) {
      cosines[p * half + j] = static_cast<float>(std::cos(p * frequency));
      sines[p * half + j] = static_cast<float>(std::sin(p * frequency));
    }
  }
  return table;
}

at::Tensor Attention(const at::Tensor& q, const at::Tensor& kv,
                     const AttentionSpec& spec, const AttentionLayout& layout,
                     bool as_served) {
  // A function of autograd takes no undefined tensor.
  const bool own = !kv.defined();
  return AttentionFunction::apply(q, own ? q : kv, own, &spec, &layout,
                                  as_served);
}

}  // namespace onegrid::finetuner
