#ifndef KERNELS_CPU_LOAD_LINE_AVX512_INL_H_
#define KERNELS_CPU_LOAD_LINE_AVX512_INL_H_

// How the linear kernels for AVX-512 and AMX read weights. Everything is local
// to the including file.

#include <immintrin.h>

#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

// Tile t of some, one.
inline TileBytes TileAt(TileBytes tiles, int64_t t) {
  tiles.at += t * tiles.stride;
  tiles.lower += t * tiles.lower_stride;
  tiles.count = 1;
  return tiles;
}

// Line j of a place. Of two planes, line j / 2 of each has the nibbles of lines
// j and j + 1 in its lower and its upper ones.
template <typename Format>
inline __m512i LoadLine(TileBytes place, int j) {
  if constexpr (Format::kLowerBytes == 0) {
    return _mm512_loadu_si512(place.at + 64 * j);
  }
  const __m512i low_bits = _mm512_set1_epi8(15);
  const __m512i upper = _mm512_loadu_si512(place.at + 64 * (j / 2));
  const __m512i lower = _mm512_loadu_si512(place.lower + 64 * (j / 2));
  if (j % 2 == 0) {
    return _mm512_or_si512(
        _mm512_slli_epi16(_mm512_and_si512(upper, low_bits), 4),
        _mm512_and_si512(lower, low_bits));
  }
  return _mm512_or_si512(
      _mm512_andnot_si512(low_bits, upper),
      _mm512_and_si512(_mm512_srli_epi16(lower, 4), low_bits));
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_LOAD_LINE_AVX512_INL_H_
