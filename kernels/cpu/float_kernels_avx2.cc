// Compiled for AVX2, FMA and F16C: include nothing that defines inline
// functions outside the intrinsics, and keep everything else file-local.
#include <immintrin.h>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

inline __m256i LoadBytes(const uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}

inline __m256 HalfScales(const uint8_t* scales) {
  return _mm256_cvtph_ps(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(scales)));
}

// Byte b of each 32-bit lane, less `bias`, times scale.
inline __m256 ExpandByte(__m256i lanes, int b, int bias, __m256 scale) {
  const __m256i byte =
      _mm256_and_si256(_mm256_srli_epi32(lanes, 8 * b), _mm256_set1_epi32(255));
  const __m256i code = _mm256_sub_epi32(byte, _mm256_set1_epi32(bias));
  return _mm256_mul_ps(_mm256_cvtepi32_ps(code), scale);
}

void Int2Expand(const uint8_t* tile, int64_t groups, float* w) {
  const __m256i low_bits = _mm256_set1_epi8(3);
  for (int64_t place = 0; place < groups / 2; ++place) {
    for (int half = 0; half < 2; ++half) {
      const __m256 scale = HalfScales(tile + 256 + 16 * half);
      for (int j = 0; j < 4; ++j) {
        const __m256i four = LoadBytes(tile + 64 * j + 32 * half);
        float* to = w + 16 * j * kTileRows + 8 * half;
        for (int f = 0; f < 4; ++f) {
          const __m256i codes =
              _mm256_and_si256(_mm256_srli_epi16(four, 2 * f), low_bits);
          for (int b = 0; b < 4; ++b) {
            _mm256_storeu_ps(to + 16 * (4 * f + b),
                             ExpandByte(codes, b, 1, scale));
          }
        }
      }
    }
    w += kInt2Group * kTileRows;
    tile += kInt2GroupBytes;
  }
}

void Int4Expand(const uint8_t* tile, int64_t groups, float* w) {
  const __m256i low_bits = _mm256_set1_epi8(15);
  for (int64_t g = 0; g < groups; ++g) {
    for (int half = 0; half < 2; ++half) {
      const __m256 scale = HalfScales(tile + 256 + 16 * half);
      for (int j = 0; j < 4; ++j) {
        const __m256i both = LoadBytes(tile + 64 * j + 32 * half);
        const __m256i low = _mm256_and_si256(both, low_bits);
        const __m256i high =
            _mm256_and_si256(_mm256_srli_epi16(both, 4), low_bits);
        float* to = w + 8 * j * kTileRows + 8 * half;
        for (int b = 0; b < 4; ++b) {
          _mm256_storeu_ps(to + 16 * b, ExpandByte(low, b, 8, scale));
          _mm256_storeu_ps(to + 16 * (b + 4), ExpandByte(high, b, 8, scale));
        }
      }
    }
    w += kLinearGroup * kTileRows;
    tile += kInt4GroupBytes;
  }
}

void Int8Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t g = 0; g < groups; ++g) {
    for (int half = 0; half < 2; ++half) {
      const __m256 scale = HalfScales(tile + 512 + 16 * half);
      for (int j = 0; j < 8; ++j) {
        const __m256i codes = LoadBytes(tile + 64 * j + 32 * half);
        float* to = w + 4 * j * kTileRows + 8 * half;
        for (int b = 0; b < 4; ++b) {
          _mm256_storeu_ps(to + 16 * b, ExpandByte(codes, b, 128, scale));
        }
      }
    }
    w += kLinearGroup * kTileRows;
    tile += kInt8GroupBytes;
  }
}

void Bf16Expand(const uint8_t* tile, int64_t groups, float* w) {
  for (int64_t i = 0; i < groups * kLinearGroup * kTileRows; i += 8) {
    const __m128i bits =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(tile + 2 * i));
    const __m256i high = _mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16);
    _mm256_storeu_ps(w + i, _mm256_castsi256_ps(high));
  }
}

template <int kRows>
void F32Rows(const float* x, int64_t x_stride, const float* w, int64_t k,
             bool accumulate, float* out, int64_t out_stride) {
  __m256 total[kRows][2];
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    const float* from = out + m * out_stride;
    total[m][0] = accumulate ? _mm256_loadu_ps(from) : _mm256_setzero_ps();
    total[m][1] = accumulate ? _mm256_loadu_ps(from + 8) : _mm256_setzero_ps();
  }
  for (int64_t i = 0; i < k; ++i) {
    const __m256 w0 = _mm256_loadu_ps(w + i * kTileRows);
    const __m256 w1 = _mm256_loadu_ps(w + i * kTileRows + 8);
#pragma GCC unroll 4
    for (int m = 0; m < kRows; ++m) {
      const __m256 a = _mm256_set1_ps(x[m * x_stride + i]);
      total[m][0] = _mm256_fmadd_ps(a, w0, total[m][0]);
      total[m][1] = _mm256_fmadd_ps(a, w1, total[m][1]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < kRows; ++m) {
    _mm256_storeu_ps(out + m * out_stride, total[m][0]);
    _mm256_storeu_ps(out + m * out_stride + 8, total[m][1]);
  }
}

void F32Tile(const float* x, int64_t x_stride, int64_t rows, const float* w,
             int64_t k, bool accumulate, float* out, int64_t out_stride) {
  int64_t m = 0;
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

const FloatKernels kFloatKernelsAvx2 = {Int2Expand, Int4Expand, Int8Expand,
                                        Bf16Expand, F32Tile};

}  // namespace onegrid::cpu
