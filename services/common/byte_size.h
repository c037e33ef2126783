// Sizes as people write them.
#ifndef SERVICES_COMMON_BYTE_SIZE_H_
#define SERVICES_COMMON_BYTE_SIZE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace onegrid::common {

// Bytes of "2GB", "1.5 GB", "500MB" or "1048576": a number, and KB, MB, GB or
// TB for powers of 1,000, in any case, as Hugging Face reads them; the B may be
// missing, as gguf-split has it. InvalidArgument (INVALID_SIZE): anything else,
// a negative size, or one of 2^63 bytes or more.
absl::StatusOr<int64_t> ParseByteSize(absl::string_view text);

}  // namespace onegrid::common

#endif  // SERVICES_COMMON_BYTE_SIZE_H_
