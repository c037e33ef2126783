// Compiled for AVX-512 F, BW, VL and VNNI: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

void QuantizeRow(const float* x, int64_t groups, int row, int rows,
                 int8_t* codes, float* scales, int32_t* offsets) {
  for (int64_t g = 0; g < groups; ++g) {
    const __m512 a = _mm512_loadu_ps(x + g * kLinearGroup);
    const __m512 b = _mm512_loadu_ps(x + g * kLinearGroup + 16);
    const float amax =
        _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
    const __m512 inverse =
        _mm512_set1_ps(amax > kSmallestAmax ? 127.0f / amax : 0.0f);
    const __m512i qa = _mm512_cvtps_epi32(_mm512_mul_ps(a, inverse));
    const __m512i qb = _mm512_cvtps_epi32(_mm512_mul_ps(b, inverse));
    const int64_t at = g * rows + row;
    auto* to = reinterpret_cast<__m128i*>(codes + at * kLinearGroup);
    _mm_storeu_si128(to, _mm512_cvtepi32_epi8(qa));
    _mm_storeu_si128(to + 1, _mm512_cvtepi32_epi8(qb));
    scales[at] = amax / 127.0f;
    offsets[at] = -8 * _mm512_reduce_add_epi32(_mm512_add_epi32(qa, qb));
  }
}

// Four consecutive activation codes in every 32-bit lane.
inline __m512i Quad(const int8_t* codes) {
  int32_t quad;
  __builtin_memcpy(&quad, codes, sizeof(quad));
  return _mm512_set1_epi32(quad);
}

inline __m512 HalfScales(const uint8_t* scales) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
}

// total += dot * weight scale * activation scale.
template <int kRows>
inline void AddGroup(const __m512i* dot, const uint8_t* weight_scales,
                     const float* scales, __m512* total) {
  const __m512 weight = HalfScales(weight_scales);
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    total[m] =
        _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot[m]), weight),
                        _mm512_set1_ps(scales[m]), total[m]);
  }
}

template <int kRows>
inline void Store(const __m512* total, float* out, int64_t out_stride) {
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    _mm512_storeu_ps(out + m * out_stride, total[m]);
  }
}

template <int kRows>
void Int2Rows(const ActivationPanel& panel, const uint8_t* tile, float* out,
              int64_t out_stride) {
  const __m512i low_bits = _mm512_set1_epi8(3);
  __m512 total[kRows];
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) total[m] = _mm512_setzero_ps();
  const int8_t* codes = panel.codes;
  for (int64_t g = 0; g < panel.groups; ++g) {
    _mm_prefetch(tile + 4 * kInt2GroupBytes, _MM_HINT_T0);
    const uint8_t* lines = tile + 128 * (g % 2);
    __m512i dot[kRows];
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      // The bias is 1 here: an eighth of that of int4.
      dot[m] = _mm512_set1_epi32(panel.offsets[g * kRows + m] / 8);
    }
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512i four = _mm512_loadu_si512(lines + 64 * j);
#pragma GCC unroll 4
      for (int f = 0; f < 4; ++f) {
        const __m512i weights =
            _mm512_and_si512(_mm512_srli_epi16(four, 2 * f), low_bits);
#pragma GCC unroll 12
        for (int m = 0; m < kRows; ++m) {
          dot[m] = _mm512_dpbusd_epi32(
              dot[m], weights, Quad(codes + m * kLinearGroup + 16 * j + 4 * f));
        }
      }
    }
    AddGroup<kRows>(dot, tile + 256, panel.scales + g * kRows, total);
    codes += kRows * kLinearGroup;
    if (g % 2 == 1) tile += kInt2GroupBytes;
  }
  Store<kRows>(total, out, out_stride);
}

template <int kRows>
void Int4Rows(const ActivationPanel& panel, const uint8_t* tile, float* out,
              int64_t out_stride) {
  const __m512i low_bits = _mm512_set1_epi8(15);
  __m512 total[kRows];
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) total[m] = _mm512_setzero_ps();
  const int8_t* codes = panel.codes;
  for (int64_t g = 0; g < panel.groups; ++g) {
    _mm_prefetch(tile + 4 * kInt4GroupBytes, _MM_HINT_T0);
    __m512i dot[kRows];
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      dot[m] = _mm512_set1_epi32(panel.offsets[g * kRows + m]);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m512i pair = _mm512_loadu_si512(tile + 64 * j);
      const __m512i low = _mm512_and_si512(pair, low_bits);
      const __m512i high =
          _mm512_and_si512(_mm512_srli_epi16(pair, 4), low_bits);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        const int8_t* row = codes + m * kLinearGroup + 8 * j;
        dot[m] = _mm512_dpbusd_epi32(dot[m], low, Quad(row));
        dot[m] = _mm512_dpbusd_epi32(dot[m], high, Quad(row + 4));
      }
    }
    AddGroup<kRows>(dot, tile + 256, panel.scales + g * kRows, total);
    codes += kRows * kLinearGroup;
    tile += kInt4GroupBytes;
  }
  Store<kRows>(total, out, out_stride);
}

template <int kRows>
void Int8Rows(const ActivationPanel& panel, const uint8_t* tile, float* out,
              int64_t out_stride) {
  __m512 total[kRows];
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) total[m] = _mm512_setzero_ps();
  const int8_t* codes = panel.codes;
  for (int64_t g = 0; g < panel.groups; ++g) {
    __m512i dot[kRows];
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      // The bias is 128 here: 16 times that of int4.
      dot[m] =
          _mm512_slli_epi32(_mm512_set1_epi32(panel.offsets[g * kRows + m]), 4);
    }
#pragma GCC unroll 8
    for (int j = 0; j < 8; ++j) {
      const __m512i weights = _mm512_loadu_si512(tile + 64 * j);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        dot[m] = _mm512_dpbusd_epi32(dot[m], weights,
                                     Quad(codes + m * kLinearGroup + 4 * j));
      }
    }
    AddGroup<kRows>(dot, tile + 512, panel.scales + g * kRows, total);
    codes += kRows * kLinearGroup;
    tile += kInt8GroupBytes;
  }
  Store<kRows>(total, out, out_stride);
}

using TileFunction = void (*)(const ActivationPanel&, const uint8_t*, float*,
                              int64_t);

void Int2Tile(const ActivationPanel& panel, const uint8_t* tile, float* out,
              int64_t out_stride) {
  static constexpr TileFunction kByRows[kPanelRows] = {
      Int2Rows<1>, Int2Rows<2>,  Int2Rows<3>,  Int2Rows<4>,
      Int2Rows<5>, Int2Rows<6>,  Int2Rows<7>,  Int2Rows<8>,
      Int2Rows<9>, Int2Rows<10>, Int2Rows<11>, Int2Rows<12>};
  kByRows[panel.rows - 1](panel, tile, out, out_stride);
}

void Int4Tile(const ActivationPanel& panel, const uint8_t* tile, float* out,
              int64_t out_stride) {
  static constexpr TileFunction kByRows[kPanelRows] = {
      Int4Rows<1>, Int4Rows<2>,  Int4Rows<3>,  Int4Rows<4>,
      Int4Rows<5>, Int4Rows<6>,  Int4Rows<7>,  Int4Rows<8>,
      Int4Rows<9>, Int4Rows<10>, Int4Rows<11>, Int4Rows<12>};
  kByRows[panel.rows - 1](panel, tile, out, out_stride);
}

void Int8Tile(const ActivationPanel& panel, const uint8_t* tile, float* out,
              int64_t out_stride) {
  static constexpr TileFunction kByRows[kPanelRows] = {
      Int8Rows<1>, Int8Rows<2>,  Int8Rows<3>,  Int8Rows<4>,
      Int8Rows<5>, Int8Rows<6>,  Int8Rows<7>,  Int8Rows<8>,
      Int8Rows<9>, Int8Rows<10>, Int8Rows<11>, Int8Rows<12>};
  kByRows[panel.rows - 1](panel, tile, out, out_stride);
}

// Byte b of each 32-bit lane, less `bias`, times scale.
inline __m512 ExpandByte(__m512i lanes, int b, int bias, __m512 scale) {
  const __m512i byte =
      _mm512_and_si512(_mm512_srli_epi32(lanes, 8 * b), _mm512_set1_epi32(255));
  const __m512i code = _mm512_sub_epi32(byte, _mm512_set1_epi32(bias));
  return _mm512_mul_ps(_mm512_cvtepi32_ps(code), scale);
}

void Int2Expand(const uint8_t* tile, int64_t groups, float* w) {
  const __m512i low_bits = _mm512_set1_epi8(3);
  for (int64_t place = 0; place < groups / 2; ++place) {
    const __m512 scale = HalfScales(tile + 256);
    for (int j = 0; j < 4; ++j) {
      const __m512i four = _mm512_loadu_si512(tile + 64 * j);
      for (int f = 0; f < 4; ++f) {
        const __m512i codes =
            _mm512_and_si512(_mm512_srli_epi16(four, 2 * f), low_bits);
        for (int b = 0; b < 4; ++b) {
          _mm512_storeu_ps(w + 16 * (4 * f + b),
                           ExpandByte(codes, b, 1, scale));
        }
      }
      w += 16 * kTileRows;
    }
    tile += kInt2GroupBytes;
  }
}

void Int4Expand(const uint8_t* tile, int64_t groups, float* w) {
  const __m512i low_bits = _mm512_set1_epi8(15);
  for (int64_t g = 0; g < groups; ++g) {
    const __m512 scale = HalfScales(tile + 256);
    for (int j = 0; j < 4; ++j) {
      const __m512i pair = _mm512_loadu_si512(tile + 64 * j);
      const __m512i low = _mm512_and_si512(pair, low_bits);
      const __m512i high =
          _mm512_and_si512(_mm512_srli_epi16(pair, 4), low_bits);
      for (int b = 0; b < 4; ++b) {
        _mm512_storeu_ps(w + 16 * b, ExpandByte(low, b, 8, scale));
        _mm512_storeu_ps(w + 16 * (b + 4), ExpandByte(high, b, 8, scale));
      }
      w += 8 * kTileRows;
    }
    tile += kInt4GroupBytes;
  }
}

void Int8Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t g = 0; g < groups; ++g) {
    const __m512 scale = HalfScales(tile + 512);
    for (int j = 0; j < 8; ++j) {
      const __m512i codes = _mm512_loadu_si512(tile + 64 * j);
      for (int b = 0; b < 4; ++b) {
        _mm512_storeu_ps(w + 16 * b, ExpandByte(codes, b, 128, scale));
      }
      w += 4 * kTileRows;
    }
    tile += kInt8GroupBytes;
  }
}

void Bf16Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t i = 0; i < groups * kLinearGroup * kTileRows; i += 16) {
    const __m256i bits =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tile + 2 * i));
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    _mm512_storeu_ps(w + i, _mm512_castsi512_ps(high));
  }
}

template <int kRows>
void F32Rows(const float* x, int64_t x_stride, const float* w, int64_t k,
             bool accumulate, float* out, int64_t out_stride) {
  __m512 total[kRows];
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    total[m] = accumulate ? _mm512_loadu_ps(out + m * out_stride)
                          : _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < k; ++i) {
    const __m512 weight = _mm512_loadu_ps(w + i * kTileRows);
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
      total[m] = _mm512_fmadd_ps(_mm512_set1_ps(x[m * x_stride + i]), weight,
                                 total[m]);
    }
  }
  Store<kRows>(total, out, out_stride);
}

void F32Tile(const float* x, int64_t x_stride, int64_t rows, const float* w,
             int64_t k, bool accumulate, float* out, int64_t out_stride) {
  int64_t m = 0;
  for (; m + 12 <= rows; m += 12) {
    F32Rows<12>(x + m * x_stride, x_stride, w, k, accumulate,
                out + m * out_stride, out_stride);
  }
  for (; m + 4 <= rows; m += 4) {
    F32Rows<4>(x + m * x_stride, x_stride, w, k, accumulate,
               out + m * out_stride, out_stride);
  }
  for (; m < rows; ++m) {
    F32Rows<1>(x + m * x_stride, x_stride, w, k, accumulate,
               out + m * out_stride, out_stride);
  }
}

}  // namespace

const LinearKernels kLinearKernelsAvx512 = {
    QuantizeRow, Int2Tile,   Int4Tile,   Int8Tile, Int2Expand,
    Int4Expand,  Int8Expand, Bf16Expand, F32Tile,
};

}  // namespace onegrid::cpu
