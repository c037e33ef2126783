#ifndef KERNELS_CPU_AMX_TILES_H_
#define KERNELS_CPU_AMX_TILES_H_

// The tile registers of AMX: their shapes and instructions. Everything is local
// to the including file. The intrinsics of GCC 12 are macros that take literal
// register numbers only, and do not say what memory they read.

#include <cstdint>

namespace onegrid::cpu {
namespace {

// The 64 bytes that LDTILECFG reads: Intel Software Developer's Manual, volume
// 1, 18.3. Each thread that uses tiles loads its own and releases it, so that
// no state of theirs is saved at a task switch after.
class TileConfig {
 public:
  TileConfig() { data_.palette = 1; }

  // Register i has `rows` rows of `bytes` bytes: at most 16 and 64.
  void Set(int i, int rows, int bytes) {
    data_.row_bytes[i] = static_cast<uint16_t>(bytes);
    data_.rows[i] = static_cast<uint8_t>(rows);
  }
  void Load() const { __asm__ volatile("ldtilecfg %0" : : "m"(data_)); }

 private:
  struct Data {
    uint8_t palette = 0;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
  };
  static_assert(sizeof(Data) == 64);
  Data data_;
};

inline void TileRelease() { __asm__ volatile("tilerelease"); }

template <int kTile>
inline void TileZero() {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}

// Rows of the tile's shape, `stride` bytes apart.
template <int kTile>
inline void TileLoad(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                   :
                   : "r"(from), "r"(stride), "i"(kTile)
                   : "memory");
}

template <int kTile>
inline void TileStore(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(to), "r"(stride), "i"(kTile)
                   : "memory");
}

// sums += a * b, of bytes with signs.
template <int kSums, int kA, int kB>
inline void TileDotSigned() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSums), "i"(kA), "i"(kB));
}

// The same with b, or both, or a without signs.
template <int kSums, int kA, int kB>
inline void TileDotSignedUnsigned() {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSums), "i"(kA), "i"(kB));
}

template <int kSums, int kA, int kB>
inline void TileDotUnsigned() {
  __asm__ volatile("tdpbuud %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSums), "i"(kA), "i"(kB));
}

template <int kSums, int kA, int kB>
inline void TileDotUnsignedSigned() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                   :
                   : "i"(kSums), "i"(kA), "i"(kB));
}

}  // namespace
}  // namespace onegrid::cpu

#endif  // KERNELS_CPU_AMX_TILES_H_
