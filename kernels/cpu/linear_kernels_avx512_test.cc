// Both orders in which AVX-512 takes the products of a linear layer give the
// same bits, on a processor of whichever maker.
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/base/cpu_features.h"
#include "kernels/cpu/linear_kernels.h"

namespace onegrid::cpu {
namespace {

constexpr int kMostTiles = 5;

struct Format {
  const char* name;
  int64_t place_groups, place_bytes, lower_bytes;  // as in linear_kernels.h
  CodeBits bits;
  TileKernel LinearKernels::* kernel;
};

template <typename Layout>
Format Of(const char* name, CodeBits bits, TileKernel LinearKernels::* kernel) {
  return {name,
          Layout::kPlaceGroups,
          Layout::kPlaceBytes,
          Layout::kLowerBytes,
          bits,
          kernel};
}

std::vector<Format> Formats() {
  using K = LinearKernels;
  constexpr auto k8 = CodeBits::k8, k16 = CodeBits::k16;
  return {
      Of<Int2Layout>("int2", k8, &K::int2_tile),
      Of<Int4Layout>("int4", k8, &K::int4_tile),
      Of<Int8Layout>("int8", k8, &K::int8_tile),
      Of<SplitInt8Layout>("split int8", k8, &K::split_int8_tile),
      Of<OddInt4Layout>("odd int4", k8, &K::odd_int4_tile),
      Of<Int2Layout>("wide int2", k16, &K::int2_wide_tile),
      Of<Int4Layout>("wide int4", k16, &K::int4_wide_tile),
      Of<Int8Layout>("wide int8", k16, &K::int8_wide_tile),
      Of<SplitInt8Layout>("wide split int8", k16, &K::split_int8_wide_tile)};
}

// Any bytes, with scales that are finite, and room for what is fetched ahead.
class Tiles {
 public:
  Tiles(const Format& format, int64_t groups, std::mt19937& random)
      : places_(groups / format.place_groups),
        format_(format),
        bytes_(Room(format.place_bytes)),
        lower_(Room(format.lower_bytes)) {
    for (uint8_t& byte : bytes_) byte = static_cast<uint8_t>(random());
    for (uint8_t& byte : lower_) byte = static_cast<uint8_t>(random());
    for (size_t at = static_cast<size_t>(format.place_bytes) - 32;
         at < bytes_.size(); at += static_cast<size_t>(format.place_bytes)) {
      // Clears the highest bit of each f16's exponent.
      for (size_t i = 1; i < 32; i += 2) bytes_[at + i] &= 0xBF;
    }
  }

  TileBytes First(int count) const {
    return {bytes_.data(), format_.lower_bytes == 0 ? nullptr : lower_.data(),
            count, places_ * format_.place_bytes,
            places_ * format_.lower_bytes};
  }

 private:
  size_t Room(int64_t place_bytes) const {
    return static_cast<size_t>(kMostTiles * places_ * place_bytes);
  }

  const int64_t places_;
  const Format& format_;
  std::vector<uint8_t> bytes_, lower_;
};

// Panels of any codes, each of the same rows.
class Panels {
 public:
  Panels(CodeBits bits, int rows, int64_t groups, int count,
         std::mt19937& random)
      : codes_(static_cast<size_t>(count * rows * groups * kLinearGroup)),
        scales_(static_cast<size_t>(count * rows * groups)),
        offsets_(scales_.size()) {
    for (int16_t& code : codes_) {
      code = bits == CodeBits::k8
                 ? static_cast<int16_t>(Code(random) + 256 * Code(random))
                 : static_cast<int16_t>(random());
    }
    for (float& scale : scales_) {
      scale = static_cast<float>(random() % 1000) * 1e-4f;
    }
    for (int32_t& offset : offsets_) {
      offset = static_cast<int32_t>(random() % 20000) - 10000;
    }
    for (int p = 0; p < count; ++p) {
      const int64_t at = p * rows * groups;
      const int16_t* codes = codes_.data() + at * kLinearGroup;
      const bool narrow = bits == CodeBits::k8;
      panels_.push_back(
          {narrow ? reinterpret_cast<const int8_t*>(codes) : nullptr,
           narrow ? nullptr : codes, scales_.data() + at, offsets_.data() + at,
           groups, rows});
    }
  }

  const std::vector<ActivationPanel>& get() const { return panels_; }

 private:
  static int Code(std::mt19937& random) {
    return static_cast<int>(random() % 255) - 127;
  }

  std::vector<int16_t> codes_;  // of 8 bits two in one
  std::vector<float> scales_;
  std::vector<int32_t> offsets_;
  std::vector<ActivationPanel> panels_;
};

TEST(LinearKernelsAvx512Test, BothOrdersGiveTheSameBits) {
  if (!kernels::IsaSupported(kernels::Isa::kAvx512Vnni)) {
    GTEST_SKIP() << "needs AVX-512 VNNI";
  }
  std::mt19937 random(29);
  for (const Format& format : Formats()) {
    for (const int64_t groups : {2, 6}) {
      const Tiles tiles(format, groups, random);
      for (int rows = 1; rows <= kPanelRows; ++rows) {
        for (const int count : {1, 3}) {
          const Panels panels(format.bits, rows, groups, count, random);
          for (int tile_count = 1; tile_count <= kMostTiles; ++tile_count) {
            const int64_t columns = tile_count * kTileRows;
            std::vector<float> one(static_cast<size_t>(count * rows * columns));
            std::vector<float> other(one.size(), -1);
            (kLinearKernelsAvx512.*format.kernel)(panels.get().data(), count,
                                                  tiles.First(tile_count),
                                                  one.data(), columns);
            (kLinearKernelsZen.*format.kernel)(panels.get().data(), count,
                                               tiles.First(tile_count),
                                               other.data(), columns);
            ASSERT_EQ(std::memcmp(one.data(), other.data(),
                                  one.size() * sizeof(float)),
                      0)
                << format.name << ", " << groups << " groups, " << rows
                << " rows, " << count << " panels, " << tile_count << " tiles";
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace onegrid::cpu
