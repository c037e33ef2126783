#include "kernels/quant/ggml_types.h"

#include <cstdint>
#include <limits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace onegrid::quant {

absl::StatusOr<GgmlTypeTraits> TraitsOf(GgmlType type) {
  switch (type) {
    case GgmlType::kF32:
      return GgmlTypeTraits{"F32", 1, 4};
    case GgmlType::kF16:
      return GgmlTypeTraits{"F16", 1, 2};
    case GgmlType::kQ4_0:
      return GgmlTypeTraits{"Q4_0", 32, 18};
    case GgmlType::kQ4_1:
      return GgmlTypeTraits{"Q4_1", 32, 20};
    case GgmlType::kQ5_0:
      return GgmlTypeTraits{"Q5_0", 32, 22};
    case GgmlType::kQ5_1:
      return GgmlTypeTraits{"Q5_1", 32, 24};
    case GgmlType::kQ8_0:
      return GgmlTypeTraits{"Q8_0", 32, 34};
    case GgmlType::kQ2_K:
      return GgmlTypeTraits{"Q2_K", 256, 84};
    case GgmlType::kQ3_K:
      return GgmlTypeTraits{"Q3_K", 256, 110};
    case GgmlType::kQ4_K:
      return GgmlTypeTraits{"Q4_K", 256, 144};
    case GgmlType::kQ5_K:
      return GgmlTypeTraits{"Q5_K", 256, 176};
    case GgmlType::kQ6_K:
      return GgmlTypeTraits{"Q6_K", 256, 210};
    case GgmlType::kIQ4_NL:
      return GgmlTypeTraits{"IQ4_NL", 32, 18};
    case GgmlType::kIQ4_XS:
      return GgmlTypeTraits{"IQ4_XS", 256, 136};
    case GgmlType::kBF16:
      return GgmlTypeTraits{"BF16", 1, 2};
    case GgmlType::kTQ1_0:
      return GgmlTypeTraits{"TQ1_0", 256, 54};
    case GgmlType::kTQ2_0:
      return GgmlTypeTraits{"TQ2_0", 256, 66};
    case GgmlType::kMXFP4:
      return GgmlTypeTraits{"MXFP4", 32, 17};
    case GgmlType::kQ2_0:
      return GgmlTypeTraits{"Q2_0", 64, 18};
  }
  return absl::UnimplementedError(
      absl::StrCat("ggml tensor type ", static_cast<uint32_t>(type),
                   " is not one this program decodes"));
}

absl::StatusOr<int64_t> RowBytes(GgmlType type, int64_t elements) {
  absl::StatusOr<GgmlTypeTraits> traits = TraitsOf(type);
  if (!traits.ok()) return traits.status();
  if (elements < 0 || elements % traits->block_elements != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(traits->name, " needs a multiple of ",
                     traits->block_elements, " elements, found ", elements));
  }
  const int64_t blocks = elements / traits->block_elements;
  if (blocks > std::numeric_limits<int64_t>::max() / traits->block_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        traits->name, ": the byte count of ", elements, " elements overflows"));
  }
  return blocks * traits->block_bytes;
}

}  // namespace onegrid::quant
