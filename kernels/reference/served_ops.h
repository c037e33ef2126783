#ifndef KERNELS_REFERENCE_SERVED_OPS_H_
#define KERNELS_REFERENCE_SERVED_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "kernels/quant/grid.h"

// The arithmetic that is served, operation by operation, in scalar form: int8
// or int16 activations in groups of 32, an int8 cache of rotated keys, and
// every f32 sum in the order that the kernels of kernels/cpu have on every
// instruction set. The results are equal bit for bit: kernels/cpu's tests say
// so for each kernel, and a trainer that computes with these functions sees the
// model that will be served, not one that rounds alike. (That differs: a sum
// that is 1 ulp off moves an activation across the edge of an int8 step, and
// after a few layers two such forward passes are as far from each other as from
// f32.)
//
// "fma" is one rounding; every other operation rounds by itself. Any threads
// may call these at once.
namespace onegrid::reference {

// A sum over a row runs in this many parts: element i is added to part i % 16,
// the parts are added up from first to last.
inline constexpr int kServedSumLanes = 16;
// Parts of the keys, in tokens from the start of the sequence, each with a
// softmax of its own; their results are joined in order.
inline constexpr int64_t kServedPartTokens = 256;

// x [k] / sqrt(mean(x^2) + eps) * weight [k] -> out [k]: with s the sum of
// fma(x, x, part), r = 1 / sqrt(s / k + eps) and out = x * r * weight from left
// to right; with `add`, that is added to out. out may be x.
void ServedRmsNorm(const float* x, const float* weight, int64_t k, float eps,
                   bool add, float* out);

// gelu_tanh(gate) * up -> out [count], as g / (1 + e^-z) * up.
void ServedGeluMul(const float* gate, const float* up, int64_t count,
                   float* out);

// Rotates x [2 * half] in place, pairing i with i + half.
void ServedRope(const float* cosines, const float* sines, int64_t half,
                float* x);

// Cosines and sines [half] of position / position_scale * theta^(-i / half),
// computed in double; with `pairs` above 0, of no rotation from pair `pairs`
// on.
void ServedRopeAngles(int64_t position, int64_t half, double theta,
                      double position_scale, float* cosines, float* sines,
                      int64_t pairs = 0);

// x [count] = cap * ((e - 1) / (e + 1)) with e = e^(x * (2 / cap)), in place.
void ServedSoftCap(float cap, int64_t count, float* x);

// e^x for -87 <= x <= 88; x outside is moved there.
float ServedExp(float x);

// The input [m, k] of a linear in codes of 8 or 16 bits.
struct ServedInput {
  int64_t m = 0;
  int64_t k = 0;
  std::vector<int16_t> codes;  // [m, k]
  std::vector<float> scales;   // [m, k / 32]
};
// k is a multiple of 32; bits is 8 or 16.
ServedInput QuantizeServed(const float* x, int64_t m, int64_t k, int bits);

// Columns [begin, end) of out [m, w.rows] = input * w^T: over groups of 32 in
// order, total = fma(float(integer dot product) * weight scale, activation
// scale, total). w.cols == input.k.
void ServedLinear(const ServedInput& input, const quant::GridMatrix& w,
                  int64_t begin, int64_t end, float* out);

// Keys and values of one sequence and layer.
struct ServedCache {
  ServedCache(int64_t kv_heads, int64_t head_dim)
      : kv_heads(kv_heads), head_dim(head_dim) {}

  int64_t kv_heads;
  int64_t head_dim;               // A power of two, a multiple of 32.
  std::vector<int8_t> keys;       // [tokens, kv_heads, head_dim], rotated
  std::vector<float> key_scales;  // [tokens, kv_heads]
  std::vector<int8_t> values;     // [tokens, kv_heads, head_dim]
  // The scale of a group of 32 values is a multiple, in 16 bits, of one per
  // token and head.
  std::vector<float> token_scales;    // [tokens, kv_heads]
  std::vector<int16_t> group_scales;  // [tokens, kv_heads, head_dim / 32]
};
// Appends one token: k and v [kv_heads, head_dim], k normed and rotated by
// position.
void ServedAppend(const float* k, const float* v, ServedCache* cache);

// Attention of one query head q [head_dim] of the token at `position` over the
// keys max(0, position - window + 1) .. position of a key/value head -> out
// [head_dim]. window 0: all. The cache holds `position`. In a part the
// weights exp(score - max) * token scale are rounded to 16 bits as one group,
// to code * unit; values are summed up in integers with the weights
// (code * group scale + 2^14) >> 15, and the sum is float(integer sum) *
// (unit * 2^15).
void ServedAttend(const float* q, const ServedCache& cache, int64_t kv_head,
                  int64_t position, int64_t window, float scale, float* out);

}  // namespace onegrid::reference

#endif  // KERNELS_REFERENCE_SERVED_OPS_H_
