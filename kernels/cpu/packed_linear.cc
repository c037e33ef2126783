#include "kernels/cpu/packed_linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "kernels/base/check.h"
#include "kernels/base/clones.h"
#include "kernels/base/float_types.h"
#include "kernels/cpu/linear_kernels.h"
#include "kernels/cpu/nibble_planes.h"
#include "kernels/cpu/tiled_matmul.h"

namespace onegrid::cpu {

// What a block of some elements of one row becomes: a row of a place in a tile,
// which holds the same elements of 16 rows.
struct TileFormat {
  const char* name;  // "Q4_0", for errors.
  int64_t block_elements;
  int64_t block_bytes;
  int64_t place_bytes;
  // Puts a block in its place, zeroed before, as row `row` of 16. False: a
  // scale or value is not finite.
  bool (*pack)(const uint8_t* block, int row, uint8_t* place);
  // Element k of the block packed as row `row`.
  float (*value)(const uint8_t* place, int row, int64_t k);
  TileKernel LinearKernels::* tile;       // nullptr: has no codes
  TileKernel LinearKernels::* wide_tile;  // of activations in 16 bits
  ExpandKernel FloatKernels::* expand;
};

namespace {

// Blocks of codes: an f16 scale, then the codes of some elements of one row. A
// place ends with the scales of its 16 rows.

int64_t Int2Byte(int row, int64_t k) { return 64 * (k / 16) + 4 * row + k % 4; }

int Int2Shift(int64_t k) { return static_cast<int>(k / 4 % 4 * 2); }

struct Int2 {
  static constexpr int64_t kPlaceBytes = kInt2GroupBytes;

  static void Pack(const uint8_t* codes, int row, uint8_t* place) {
    for (int k = 0; k < kInt2Group; ++k) {
      const int code = (codes[k / 4] >> (k % 4 * 2)) & 3;
      place[Int2Byte(row, k)] |= static_cast<uint8_t>(code << Int2Shift(k));
    }
  }
  static int Code(const uint8_t* place, int row, int64_t k) {
    return ((place[Int2Byte(row, k)] >> Int2Shift(k)) & 3) - 1;
  }
};

struct Int4 {
  static constexpr int64_t kPlaceBytes = kInt4GroupBytes;

  static void Pack(const uint8_t* codes, int row, uint8_t* place) {
    const auto code = [codes](int k) {
      return k < 16 ? codes[k % 16] & 15 : codes[k % 16] >> 4;
    };
    for (int j = 0; j < 4; ++j) {
      for (int b = 0; b < 4; ++b) {
        place[64 * j + 4 * row + b] =
            static_cast<uint8_t>(code(8 * j + b) | (code(8 * j + 4 + b) << 4));
      }
    }
  }
  static int Code(const uint8_t* place, int row, int64_t k) {
    const uint8_t pair = place[64 * (k / 8) + 4 * row + k % 4];
    return (k % 8 < 4 ? pair & 15 : pair >> 4) - 8;
  }
};

struct Int8 {
  static constexpr int64_t kPlaceBytes = kInt8GroupBytes;

  static void Pack(const uint8_t* codes, int row, uint8_t* place) {
    for (int k = 0; k < kLinearGroup; ++k) {
      // Flipping the top bit of a two's complement byte adds 128.
      place[64 * (k / 4) + 4 * row + k % 4] =
          static_cast<uint8_t>(codes[k] ^ 0x80);
    }
  }
  static int Code(const uint8_t* place, int row, int64_t k) {
    return place[64 * (k / 4) + 4 * row + k % 4] - 128;
  }
};

template <typename Codes>
bool PackScaled(const uint8_t* block, int row, uint8_t* place) {
  Codes::Pack(block + 2, row, place);
  std::memcpy(place + Codes::kPlaceBytes - 2 * kTileRows + 2 * row, block, 2);
  return (block[1] & 0x7C) != 0x7C;  // An f16 exponent of all ones.
}

template <typename Codes>
float ScaledValue(const uint8_t* place, int row, int64_t k) {
  uint16_t bits;
  std::memcpy(&bits, place + Codes::kPlaceBytes - 2 * kTileRows + 2 * row,
              sizeof(bits));
  return static_cast<float>(Codes::Code(place, row, k)) *
         kernels::F16ToFloat(bits);
}

bool PackBf16(const uint8_t* block, int row, uint8_t* place) {
  bool finite = true;
  for (int k = 0; k < kLinearGroup; ++k) {
    uint16_t bits;
    std::memcpy(&bits, block + 2 * k, sizeof(bits));
    finite &= (bits & 0x7F80) != 0x7F80;
    std::memcpy(place + 2 * (kTileRows * k + row), &bits, sizeof(bits));
  }
  return finite;
}

float Bf16Value(const uint8_t* place, int row, int64_t k) {
  uint16_t bits;
  std::memcpy(&bits, place + 2 * (kTileRows * k + row), sizeof(bits));
  return kernels::Bf16ToFloat(bits);
}

constexpr TileFormat kInt2 = {"Q2_0",
                              kInt2Group,
                              18,
                              kInt2GroupBytes,
                              PackScaled<Int2>,
                              ScaledValue<Int2>,
                              &LinearKernels::int2_tile,
                              &LinearKernels::int2_wide_tile,
                              &FloatKernels::int2_expand};
constexpr TileFormat kInt4 = {"Q4_0",
                              kLinearGroup,
                              18,
                              kInt4GroupBytes,
                              PackScaled<Int4>,
                              ScaledValue<Int4>,
                              &LinearKernels::int4_tile,
                              &LinearKernels::int4_wide_tile,
                              &FloatKernels::int4_expand};
constexpr TileFormat kInt8 = {"Q8_0",
                              kLinearGroup,
                              34,
                              kInt8GroupBytes,
                              PackScaled<Int8>,
                              ScaledValue<Int8>,
                              &LinearKernels::int8_tile,
                              &LinearKernels::int8_wide_tile,
                              &FloatKernels::int8_expand};
// Packed as kInt8, then split.
constexpr TileFormat kSplitInt8 = {"Q8_0",
                                   kLinearGroup,
                                   34,
                                   kInt8GroupBytes,
                                   PackScaled<Int8>,
                                   ScaledValue<Int8>,
                                   &LinearKernels::split_int8_tile,
                                   &LinearKernels::split_int8_wide_tile,
                                   &FloatKernels::int8_expand};
constexpr TileFormat kBf16 = {
    "BF16",          kLinearGroup, 2 * kLinearGroup,
    kBf16GroupBytes, PackBf16,     Bf16Value,
    nullptr,         nullptr,      &FloatKernels::bf16_expand};

absl::StatusOr<const TileFormat*> FormatOf(quant::GgmlType type) {
  switch (type) {
    case quant::GgmlType::kQ2_0:
      return &kInt2;
    case quant::GgmlType::kQ4_0:
      return &kInt4;
    case quant::GgmlType::kQ8_0:
      return &kInt8;
    case quant::GgmlType::kBF16:
      return &kBf16;
    default:
      break;
  }
  const auto traits = quant::TraitsOf(type);
  if (!traits.ok()) return traits.status();
  return absl::UnimplementedError(absl::StrCat(
      "no kernel for ", traits->name, ", only for Q2_0, Q4_0, Q8_0 and BF16"));
}

// The kernels count in groups of 32, two of which may share a place.
TiledWeights View(const PackedLinear& w) {
  return {w.tiles(), w.n(), w.k(),
          w.format().place_bytes / (w.format().block_elements / kLinearGroup),
          w.lower()};
}

TileKernel KernelOf(const QuantizedActivations& x, const PackedLinear& w) {
  return x.kernels().*
         (x.bits() == CodeBits::k8 ? w.format().tile : w.format().wide_tile);
}

absl::Status CheckSizes(const TileFormat& format,
                        absl::Span<const uint8_t> blocks, int64_t n,
                        int64_t k) {
  if (n <= 0 || k <= 0 || k % format.block_elements != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(format.name, " weights are [", n, ", ", k,
                     "]: expected positive sizes and a multiple of ",
                     format.block_elements, " columns"));
  }
  const int64_t row_bytes = k / format.block_elements * format.block_bytes;
  const auto bytes = static_cast<int64_t>(blocks.size());
  if (bytes / row_bytes != n || bytes % row_bytes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(format.name, " data of [", n, ", ", k, "] has ", bytes,
                     " bytes, expected ", row_bytes, " a row"));
  }
  return absl::OkStatus();
}

// Makes tiles of the blocks of [n, k]. Thread-safe.
class Packer {
 public:
  Packer(const TileFormat& format, absl::Span<const uint8_t> blocks, int64_t n,
         int64_t k)
      : format_(format),
        blocks_(blocks),
        n_(n),
        row_blocks_(k / format.block_elements) {}

  int64_t tile_bytes() const { return row_blocks_ * format_.place_bytes; }
  // to: zero before.
  void Pack(int64_t tile, uint8_t* to) {
    const int64_t first = tile * kTileRows;
    const int64_t end = std::min(n_, first + kTileRows);
    for (int64_t row = first; row < end; ++row) {
      const uint8_t* block = blocks_.data() + row * row_bytes();
      for (int64_t i = 0; i < row_blocks_; ++i) {
        if (!format_.pack(block, static_cast<int>(row - first),
                          to + i * format_.place_bytes)) {
          bad_block_ = row * row_blocks_ + i;
        }
        block += format_.block_bytes;
      }
    }
  }
  // Those of tiles [begin, end).
  absl::Span<const uint8_t> BlocksOf(int64_t begin, int64_t end) const {
    const int64_t first = begin * kTileRows;
    const int64_t last = std::min(n_, end * kTileRows);
    return blocks_.subspan(static_cast<size_t>(first * row_bytes()),
                           static_cast<size_t>((last - first) * row_bytes()));
  }
  // Of all that was packed.
  absl::Status status() const {
    if (bad_block_ < 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(format_.name, " data has a ",
                     format_.tile == nullptr ? "value" : "scale",
                     " that is not finite, in block ", bad_block_.load()));
  }

 private:
  int64_t row_bytes() const { return row_blocks_ * format_.block_bytes; }

  const TileFormat& format_;
  const absl::Span<const uint8_t> blocks_;
  const int64_t n_;
  const int64_t row_blocks_;
  std::atomic<int64_t> bad_block_{-1};
};

// squares[r] += the squares of column r of values [count][16].
ONEGRID_CLONES void AddSquares(const float* values, int64_t count,
                               float* squares) {
  for (int64_t k = 0; k < count; ++k) {
    for (int r = 0; r < kTileRows; ++r) {
      const float value = values[k * kTileRows + r];
      squares[r] += value * value;
    }
  }
}

}  // namespace

absl::StatusOr<PackedLinear> PackedLinear::FromBlocks(
    quant::GgmlType type, absl::Span<const uint8_t> blocks, int64_t n,
    int64_t k, kernels::ThreadPool& pool, const BlocksDone& done,
    Storage storage) {
  const auto found = FormatOf(type);
  if (!found.ok()) return found.status();
  const TileFormat& format = **found;
  if (auto status = CheckSizes(format, blocks, n, k); !status.ok()) {
    return status;
  }
  Packer packer(format, blocks, n, k);
  const int64_t tile_count = (n + kTileRows - 1) / kTileRows;
  const bool split = storage == Storage::kSplit && &format == &kInt8;
  const int64_t groups = k / kLinearGroup;
  const int64_t tile_bytes =
      split ? groups * kUpperGroupBytes : packer.tile_bytes();
  const int64_t lower_bytes = split ? groups * kLowerGroupBytes : 0;
  kernels::AlignedBuffer<uint8_t> tiles(
      static_cast<size_t>(tile_count * tile_bytes), kernels::Lifetime::kLong);
  kernels::AlignedBuffer<uint8_t> lower(
      static_cast<size_t>(tile_count * lower_bytes), kernels::Lifetime::kLong);
  pool.ParallelFor(tile_count, pool.GrainFor(tile_count),
                   [&](int64_t begin, int64_t end, int) {
                     kernels::AlignedBuffer<uint8_t> whole(
                         split ? static_cast<size_t>(packer.tile_bytes()) : 0);
                     for (int64_t tile = begin; tile < end; ++tile) {
                       uint8_t* to = tiles.data() + tile * tile_bytes;
                       if (!split) {
                         packer.Pack(tile, to);
                         continue;
                       }
                       std::fill(whole.begin(), whole.end(), uint8_t{0});
                       packer.Pack(tile, whole.data());
                       SplitTile(whole.data(), groups, to,
                                 lower.data() + tile * lower_bytes);
                     }
                     if (done != nullptr) done(packer.BlocksOf(begin, end));
                   });
  if (auto status = packer.status(); !status.ok()) return status;
  return PackedLinear(split ? kSplitInt8 : format, n, k, std::move(tiles),
                      std::move(lower));
}

void PackedLinear::DequantizeRow(int64_t row, absl::Span<float> out) const {
  KERNELS_CHECK(row >= 0 && row < n_);
  KERNELS_CHECK(out.size() == static_cast<size_t>(k_));
  const int r = static_cast<int>(row % kTileRows);
  const int64_t row_blocks = k_ / format_->block_elements;
  const TiledWeights view = View(*this);
  kernels::AlignedBuffer<uint8_t> buffer = view.Buffer();
  const uint8_t* place = view.WholeTile(row / kTileRows, buffer);
  float* to = out.data();
  for (int64_t i = 0; i < row_blocks; ++i) {
    for (int64_t j = 0; j < format_->block_elements; ++j) {
      *to++ = format_->value(place, r, j);
    }
    place += format_->place_bytes;
  }
}

bool PackedLinear::has_codes() const { return format_->tile != nullptr; }

void Linear(const QuantizedActivations& x, const PackedLinear& w, float* out,
            kernels::ThreadPool& pool, kernels::Isa isa) {
  Linear(x, {{&w, out}}, pool, isa);
}

void Linear(const QuantizedActivations& x,
            absl::Span<const LinearProduct> products, kernels::ThreadPool& pool,
            kernels::Isa isa) {
  if (x.m() == 0) return;
  const LinearKernels& run = LinearKernelsFor(isa, x.m(), x.bits());
  KERNELS_CHECK(&run == &x.kernels());  // Whose layout x has.
  std::vector<TiledProduct> tiled;
  for (const auto& [weights, out] : products) {
    KERNELS_CHECK(weights->has_codes());
    tiled.push_back({View(*weights), KernelOf(x, *weights), out});
  }
  TiledMatmul(x, tiled, pool);
}

void LinearPart(const QuantizedActivations& x, const PackedLinear& w,
                const ProductPart& part, float* out) {
  KERNELS_CHECK(w.has_codes() && x.k() == w.k());
  const TileSlice& slice = part.slice;
  KERNELS_CHECK(slice.tile >= 0 &&
                slice.tile + (slice.streams - 1) * slice.apart + slice.tiles <=
                    w.tile_count());
  const auto panels = x.panels().subspan(static_cast<size_t>(part.panel),
                                         static_cast<size_t>(part.panels));
  x.BeginProducts();
  MultiplySlice(panels, x.kernels(), KernelOf(x, w), View(w), slice,
                slice.tiles * kTileRows, out, slice.size() * kTileRows);
  x.EndProducts();
}

namespace {

// The planes of a tile: one, or two if it is split.
struct TilePlanes {
  const uint8_t* at[2];
  int64_t bytes[2];
  int count;
};

TilePlanes PlanesOf(const PackedLinear& w, int64_t tile) {
  const TiledWeights view = View(w);
  const TileBytes from = view.Tile(tile);
  if (from.lower == nullptr) return {{from.at}, {view.tile_bytes()}, 1};
  return {{from.at, from.lower},
          {view.groups() * kUpperGroupBytes, view.groups() * kLowerGroupBytes},
          2};
}

}  // namespace

void LinearTile(const QuantizedActivations& x, const PackedLinear& w,
                int64_t tile, float* out) {
  KERNELS_CHECK(w.has_codes() && x.k() == w.k());
  KERNELS_CHECK(tile >= 0 && tile < w.tile_count());
  // Kernels fetch what lies behind a tile: of a copy that is what is here.
  constexpr int64_t kCopyBytes = 24 * 1024;
  alignas(64) uint8_t copy[kCopyBytes + kFetchL2Bytes];
  const TilePlanes planes = PlanesOf(w, tile);
  TileBytes from = View(w).Tile(tile);
  if (planes.bytes[0] + planes.bytes[1] <= kCopyBytes) {
    std::memcpy(copy, planes.at[0], static_cast<size_t>(planes.bytes[0]));
    from.at = copy;
    if (planes.count == 2) {
      uint8_t* lower = copy + planes.bytes[0];
      std::memcpy(lower, planes.at[1], static_cast<size_t>(planes.bytes[1]));
      from.lower = lower;
    }
  }
  x.BeginProducts();
  KernelOf(x, w)(x.panels().data(), static_cast<int64_t>(x.panels().size()),
                 from, out, kTileRows);
  x.EndProducts();
}

void FetchTile(const PackedLinear& w, int64_t tile) {
  const TilePlanes planes = PlanesOf(w, tile);
  for (int plane = 0; plane < planes.count; ++plane) {
    for (int64_t i = 0; i < planes.bytes[plane]; i += 64) {
      __builtin_prefetch(planes.at[plane] + i, /*rw=*/0, /*locality=*/2);
    }
  }
}

void RowNorms(const PackedLinear& w, float* out, kernels::ThreadPool& pool,
              kernels::Isa isa) {
  KERNELS_CHECK(w.has_codes());
  const TiledWeights view = View(w);
  const ExpandKernel expand = FloatKernelsFor(isa).*w.format().expand;
  // Groups that are expanded at once; of int2 two share a place.
  constexpr int64_t kGroups = 2;
  const auto body = [&](int64_t begin, int64_t end, int) {
    alignas(64) float values[kGroups * kLinearGroup * kTileRows];
    kernels::AlignedBuffer<uint8_t> buffer = view.Buffer();
    for (int64_t tile = begin; tile < end; ++tile) {
      float squares[kTileRows] = {};
      const uint8_t* at = view.WholeTile(tile, buffer);
      for (int64_t g = 0; g < view.groups(); g += kGroups) {
        const int64_t count = std::min(kGroups, view.groups() - g);
        expand(at + g * view.group_bytes, count, values);
        AddSquares(values, count * kLinearGroup, squares);
      }
      const int64_t first = tile * kTileRows;
      const int64_t rows = std::min<int64_t>(kTileRows, w.n() - first);
      for (int64_t r = 0; r < rows; ++r) out[first + r] = std::sqrt(squares[r]);
    }
  };
  pool.ParallelFor(view.tile_count(), pool.GrainFor(view.tile_count()), body);
}

void LinearF32(const float* x, int64_t m, const PackedLinear& w, float* out,
               kernels::ThreadPool& pool, kernels::Isa isa) {
  const FloatKernels& run = FloatKernelsFor(isa);
  TiledMatmulF32(x, m, View(w), run.*w.format().expand, run, out, pool);
}

}  // namespace onegrid::cpu
