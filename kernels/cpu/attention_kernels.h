#ifndef KERNELS_CPU_ATTENTION_KERNELS_H_
#define KERNELS_CPU_ATTENTION_KERNELS_H_

#include <cstdint>

#include "kernels/base/cpu_features.h"

// The inner loops of attention over one page of one key/value head, one set for
// each instruction set. Plain data and declarations only: see linear_kernels.h.

namespace onegrid::cpu {

// Keys of one key tile, columns of one value tile.
inline constexpr int kKeyTile = 16;
// Columns of values that share a scale.
inline constexpr int64_t kValueGroup = 32;
// Most query rows that one block of attention works on.
inline constexpr int kMaxBlockQueryRows = 48;
// Tokens of one page of keys and values.
inline constexpr int64_t kPageTokens = 64;
// Pages of one part of a row's softmax, and their tokens.
inline constexpr int kPartPages = 4;
inline constexpr int64_t kPartTokens = kPartPages * kPageTokens;
// The largest head that attention takes.
inline constexpr int64_t kMaxHeadDim = 512;

// Some queries in 16 bits: codes [rows][head_dim], in each row in an order that
// belongs to the instruction set, scales [rows].
struct QueryPanel {
  int16_t* codes;
  float* scales;
  int rows;
};

// The values of one page: codes [d / 16][kPageTokens / 4][16][4], which times
// group_scales [d / kValueGroup][kPageTokens] and token_scales [kPageTokens]
// are the values.
struct PageValues {
  const int8_t* codes;
  const int16_t* group_scales;
  const float* token_scales;
};

// The values of up to kPartPages pages that follow each other, and what is read
// after them: its first lines are fetched. Null if that is not known.
struct PartValues {
  PageValues pages[kPartPages];
  int count;
  const int8_t* next;
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
  // end_tile) of a page; others of the page may be written too. next: as in
  // PartValues.
  void (*scores_int8)(const QueryPanel& panel, int64_t d, const int8_t* keys,
                      const float* key_scales, const int8_t* next,
                      int first_tile, int end_tile, float* scores,
                      int64_t stride);
  // Softmax of a row over a part: scores [0, tokens) become exp(score - *max)
  // inside [begin, end), which has their maximum, and 0 outside; *sum is their
  // sum. begin < end.
  void (*softmax)(float* scores, int64_t tokens, int64_t begin, int64_t end,
                  float* max, float* sum);
  // Joins the softmax state of later keys to that of earlier ones (*max, *sum,
  // values [d]), neither of them empty: both are weighted by e^(their maximum
  // - the common one).
  void (*join)(float later_max, float later_sum, const float* later_values,
               int64_t d, float* max, float* sum, float* values);
  // sums [rows][d] = the values of a part weighted by p [rows][kPartTokens],
  // which is 0 for tokens that a row does not see. Of a row, the products p *
  // token_scales are rounded to 16 bits, codes * unit with unit = their maximum
  // / 32767. In a group of columns a token's weight is (code * group_scale +
  // 2^14) >> 15, and the sum is float(integer dot product) * (unit * 2^15).
  void (*sum_values_int8)(const float* p, int rows, const PartValues& values,
                          int64_t d, float* sums);
  // sums[r * d + i] += sum over t < tokens of p[r * kPartTokens + t] * v[t][i],
  // in that order.
  void (*add_values_f32)(const float* p, int rows, const float* v,
                         int64_t tokens, int64_t d, float* sums);
};

extern const AttentionKernels kAttentionKernelsPortable;
extern const AttentionKernels kAttentionKernelsAvx2;
extern const AttentionKernels kAttentionKernelsAvxVnni;
extern const AttentionKernels kAttentionKernelsAvx512;
// With AVX-512, for AMD's processors.
extern const AttentionKernels kAttentionKernelsZen;
extern const AttentionKernels kAttentionKernelsAmx;

// The set for isa, which the processor must support.
const AttentionKernels& AttentionKernelsFor(kernels::Isa isa);

}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_ATTENTION_KERNELS_H_
