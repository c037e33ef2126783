#include "services/model/python_number.h"

#include <charconv>
#include <cstddef>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace onegrid::model {
namespace {

constexpr size_t kDigitsMax = 32;  // of "-1.2345678901234567e-308"

}  // namespace

std::string PythonFloat(double value) {
  char buffer[kDigitsMax];
  const auto end = std::to_chars(buffer, buffer + kDigitsMax, value,
                                 std::chars_format::scientific);
  const std::string text(buffer, end.ptr);  // "-1.25e+02"
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  const size_t sign = text[0] == '-' ? 1 : 0;
  std::string digits = text.substr(sign, 1);
  if (e > sign + 2) digits += text.substr(sign + 2, e - sign - 2);
  const auto count = static_cast<int>(digits.size());
  std::string number;
  if (exponent < -4 || exponent >= 16) {
    number =
        absl::StrCat(digits.substr(0, 1), count > 1 ? "." : "",
                     digits.substr(1), absl::StrFormat("e%+03d", exponent));
  } else if (exponent < 0) {
    number = absl::StrCat("0.", std::string(-exponent - 1, '0'), digits);
  } else if (count <= exponent + 1) {
    number = absl::StrCat(digits, std::string(exponent + 1 - count, '0'), ".0");
  } else {
    number = absl::StrCat(digits.substr(0, exponent + 1), ".",
                          digits.substr(exponent + 1));
  }
  return absl::StrCat(text.substr(0, sign), number);
}

}  // namespace onegrid::model
