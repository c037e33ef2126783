#include "services/common/byte_size.h"

#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"

namespace onegrid::common {

absl::StatusOr<int64_t> ParseByteSize(absl::string_view text) {
  absl::string_view number = absl::StripAsciiWhitespace(text);
  double factor = 1;
  if (!number.empty() && absl::ascii_toupper(number.back()) == 'B') {
    number.remove_suffix(1);
  }
  if (!number.empty()) {
    const size_t power =
        std::string("KMGT").find(absl::ascii_toupper(number.back()));
    if (power != std::string::npos) {
      number.remove_suffix(1);
      for (size_t i = 0; i <= power; ++i) factor *= 1000;
    }
  }
  number = absl::StripAsciiWhitespace(number);
  double value = 0;
  // SimpleAtod reads "nan", "inf" and "0x1p3", too.
  const bool is_number =
      number.find_first_not_of("0123456789.") == absl::string_view::npos &&
      absl::SimpleAtod(number, &value);
  const double bytes = value * factor;
  if (!is_number || bytes >= 9223372036854775808.0) {
    return MakeError(absl::StatusCode::kInvalidArgument, "INVALID_SIZE",
                     absl::StrCat("\"", text,
                                  "\" is not a size: expected a number of "
                                  "bytes, or one with KB, MB, GB or TB, below "
                                  "2^63 bytes"),
                     {{"size", std::string(text)}});
  }
  return static_cast<int64_t>(bytes);
}

}  // namespace onegrid::common
