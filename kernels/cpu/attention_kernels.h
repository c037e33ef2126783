#ifndef KERNELS_CPU_ATTENTION_KERNELS_H_
#define KERNELS_CPU_ATTENTION_KERNELS_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"

// The inner loops of attention over one page of one key/value head, one set for
// each instruction set. Plain data and declarations only: see linear_kernels.h.

namespace onegrid::cpu {

// Keys of one key tile.
inline constexpr int kKeyTile = 16;
// Most query rows that one block of attention works on.
inline constexpr int kMaxBlockQueryRows = 48;
// Tokens of one page of keys and values.
inline constexpr int64_t kPageTokens = 64;
// The largest head that attention takes.
inline constexpr int64_t kMaxHeadDim = 512;

// Some queries in 16 bits: codes [rows][head_dim], in each row in an order that
// belongs to the instruction set, sums [rows] of the codes, scales [rows].
struct QueryPanel {
  int16_t* codes;
  int32_t* sums;
  float* scales;
  int rows;
};

struct AttentionKernels {
  // Query rows of a block.
  int block_rows;
  // One rotated key x [d] to codes and its scale, max |x| / 127.
  void (*quantize_key)(const float* x, int64_t d, int8_t* codes, float* scale);
  // Query x [d] into row r of the panel: scale = max |x| / 32767 * factor.
  void (*quantize_query)(const float* x, int64_t d, float factor, int r,
                         const QueryPanel& panel);
  // scores[r * stride + t] = q_r . k_t for the keys of tiles [first_tile,
  // end_tile) of a page; others of the page may be written too.
  void (*scores_int8)(const QueryPanel& panel, int64_t d, const uint8_t* keys,
                      const float* key_scales, int first_tile, int end_tile,
                      float* scores, int64_t stride);
  // One page of a row's online softmax. Scores [0, kPageTokens) become
  // exp(score - max) inside [begin, end) and 0 outside. *max and *sum are
  // updated; what was summed before must be multiplied by the result.
  float (*softmax_step)(float* scores, int64_t begin, int64_t end, float* max,
                        float* sum);
  // Joins the softmax state of later keys to that of earlier ones (*max, *sum,
  // values [d]), neither of them empty: both are weighted by e^(their maximum
  // - the common one).
  void (*join)(float later_max, float later_sum, const float* later_values,
               int64_t d, float* max, float* sum, float* values);
  // sums[r * d + i] += sum over t < tokens of p[r * kPageTokens + t] * v[t][i].
  // Meanwhile fetches `next`, if not nullptr: the keys and values of a page, as
  // many of them as there are tokens here.
  void (*add_values_int8)(const float* p, int rows, const int8_t* v,
                          const float* v_scales, int64_t tokens, int64_t d,
                          const uint8_t* next, float* sums);
  void (*add_values_f32)(const float* p, int rows, const float* v,
                         int64_t tokens, int64_t d, float* sums);
};

extern const AttentionKernels kAttentionKernelsPortable;
extern const AttentionKernels kAttentionKernelsAvx2;
extern const AttentionKernels kAttentionKernelsAvxVnni;
extern const AttentionKernels kAttentionKernelsAvx512;
extern const AttentionKernels kAttentionKernelsAmx;

// The set for isa, which the processor must support.
const AttentionKernels& AttentionKernelsFor(kernels::Isa isa);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ATTENTION_KERNELS_H_
