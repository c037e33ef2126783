#ifndef KERNELS_CPU_DOT_CODES_AVX512_INL_H_
#define KERNELS_CPU_DOT_CODES_AVX512_INL_H_

// Products of 16 lanes with a few codes that are the same for all, of
// activations, queries or weights of tokens. The codes are read in the
// instruction that multiplies: spreading them in a register first takes the
// place of a product, and where several vectors meet the same ones the compiler
// spreads more of them than there are registers. Everything is local to the
// including file.

#include <immintrin.h>

#include <cstdint>

namespace onegrid::cpu {
namespace {

// sums += the products of four bytes of each lane, without signs, with four
// codes.
inline void AddQuad(__m512i lanes, const int8_t* codes, __m512i& sums) {
  __asm__("vpdpbusd %2%{1to16%}, %1, %0"
          : "+v"(sums)
          : "v"(lanes), "m"(*reinterpret_cast<const int8_t(*)[4]>(codes)));
}

// The same of two numbers of 16 bits with signs.
inline void AddPair(__m512i lanes, const int16_t* codes, __m512i& sums) {
  __asm__("vpdpwssd %2%{1to16%}, %1, %0"
          : "+v"(sums)
          : "v"(lanes), "m"(*reinterpret_cast<const int16_t(*)[2]>(codes)));
}

// Four bytes of codes in all lanes, where several vectors meet them: kept from
// the compiler, which would load them for each.
template <typename Code>
inline __m512i Spread(const Code* codes) {
  __m512i spread;
  __asm__("vpbroadcastd %1, %0"
          : "=v"(spread)
          : "m"(*reinterpret_cast<const Code(*)[4 / sizeof(Code)]>(codes)));
  return spread;
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_DOT_CODES_AVX512_INL_H_
