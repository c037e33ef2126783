#include "kernels/quant/dequantize.h"

#include <cstdint>
#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/base/check.h"
#include "kernels/base/float_types.h"
#include "kernels/quant/block_decoders.h"
#include "kernels/quant/ggml_types.h"

namespace onegrid::quant {
namespace {

void F32Block(const uint8_t* b, float* y) { std::memcpy(y, b, sizeof(float)); }
void F16Block(const uint8_t* b, float* y) { *y = LoadF16(b); }
void Bf16Block(const uint8_t* b, float* y) {
  *y = kernels::Bf16ToFloat(LoadU16(b));
}

// nullptr: the type is not a plain float.
BlocksDecoder FloatDecoder(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return DecodeBlocks<F32Block, 1, 4>;
    case GgmlType::kF16:
      return DecodeBlocks<F16Block, 1, 2>;
    case GgmlType::kBF16:
      return DecodeBlocks<Bf16Block, 1, 2>;
    default:
      return nullptr;
  }
}

}  // namespace

absl::Status Dequantize(GgmlType type, absl::Span<const uint8_t> src,
                        absl::Span<float> dst) {
  absl::StatusOr<GgmlTypeTraits> traits = TraitsOf(type);
  if (!traits.ok()) return traits.status();
  absl::StatusOr<int64_t> bytes =
      RowBytes(type, static_cast<int64_t>(dst.size()));
  if (!bytes.ok()) return bytes.status();
  if (static_cast<int64_t>(src.size()) != *bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(traits->name, ": ", dst.size(), " elements take ", *bytes,
                     " bytes, found ", src.size()));
  }
  BlocksDecoder decode = nullptr;
  for (const auto family :
       {FloatDecoder, SmallBlocksDecoder, KBlocksDecoder, TableBlocksDecoder}) {
    if (decode == nullptr) decode = family(type);
  }
  KERNELS_CHECK(decode != nullptr);
  decode(src.data(), static_cast<int64_t>(dst.size()) / traits->block_elements,
         dst.data());
  return absl::OkStatus();
}

}  // namespace onegrid::quant
