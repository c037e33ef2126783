// Compiled for AVX-512 F, BW, VL and VNNI: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

inline __m512 HalfScales(const uint8_t* scales) {
  return _mm512_cvtph_ps(
      _mm256_loadu_si256(reinterpret_cast<const __m256i*>(scales)));
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
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
    _mm512_storeu_ps(out + m * out_stride, total[m]);
  }
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

const FloatKernels kFloatKernelsAvx512 = {Int2Expand, Int4Expand, Int8Expand,
                                          Bf16Expand, F32Tile};

}  // namespace onegrid::cpu
