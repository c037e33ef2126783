#ifndef KERNELS_REFERENCE_OPS_H_
#define KERNELS_REFERENCE_OPS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

// Each op of a decoder layer in its plainest form: the oracle that fast kernels
// are tested against. Sums are kept in double and rounded to float once at the
// end, so an op is as exact as its float inputs allow. Slow on purpose.
//
// Letters: T query tokens, S key tokens, H query heads, KH key/value heads,
// D head size, M rows, N outputs, K inputs. Every array is row-major without
// gaps. A span of the wrong size ends the process (KERNELS_CHECK). Any threads
// may call these at once.
namespace onegrid::reference {

// x [M, K], w [N, K] -> [M, N]: out[m, n] = sum_k x[m, k] * w[n, k].
std::vector<float> MatMul(absl::Span<const float> x, absl::Span<const float> w,
                          int64_t m, int64_t n, int64_t k);

// x [M, K], weight [K] -> [M, K]: x / sqrt(mean_k(x^2) + eps) * weight.
// weight is the whole factor, as GGUF stores it (1 + the checkpoint's value).
std::vector<float> RmsNorm(absl::Span<const float> x,
                           absl::Span<const float> weight, int64_t m, int64_t k,
                           double eps);

// Rotates x [T, H, D] by position, pairing element i with i + D/2 ("NeoX"):
// angle = positions[t] / position_scale * theta^(-2i / D). positions [T].
std::vector<float> RopeNeox(absl::Span<const float> x,
                            absl::Span<const int32_t> positions, int64_t heads,
                            int64_t head_dim, double theta,
                            double position_scale);

// Elementwise x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))).
std::vector<float> GeluTanh(absl::Span<const float> x);

// x [M, K] -> each row exp(x) / sum(exp(x)).
std::vector<float> Softmax(absl::Span<const float> x, int64_t m, int64_t k);

struct AttentionShape {
  int64_t queries;    // T
  int64_t keys;       // S
  int64_t heads;      // H, a multiple of kv_heads.
  int64_t kv_heads;   // KH; query head h reads key/value head h / (H / KH).
  int64_t head_dim;   // D
  int64_t first_pos;  // Position of query 0; key s has position s.
  int64_t window;     // Keys a query sees, itself included; 0: all before it.
  double scale;       // Factor on q . k.
};

// q [T, H, D], k and v [S, KH, D] -> [T, H, D]. The query at position p sees
// keys max(0, p - window + 1) .. p; first_pos + T must not exceed S.
std::vector<float> Attention(const AttentionShape& shape,
                             absl::Span<const float> q,
                             absl::Span<const float> k,
                             absl::Span<const float> v);

// Multiplies each row of x [M, D] by the D x D Hadamard matrix in Sylvester
// order over sqrt(D): orthonormal and its own inverse. D is a power of two.
// Element (i, j) is (-1)^popcount(i & j) / sqrt(D).
std::vector<float> Hadamard(absl::Span<const float> x, int64_t m, int64_t d);

}  // namespace onegrid::reference

#endif  // KERNELS_REFERENCE_OPS_H_
