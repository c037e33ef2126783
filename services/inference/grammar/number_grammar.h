// Numbers within bounds as grammars.
#ifndef SERVICES_INFERENCE_GRAMMAR_NUMBER_GRAMMAR_H_
#define SERVICES_INFERENCE_GRAMMAR_NUMBER_GRAMMAR_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace onegrid::grammar {

// Digits of a number at most, so that a reader that holds numbers in 64 bits of
// floating point tells all of them apart.
inline constexpr int kMaxDigits = 15;
// Of a number with bounds, those after the point; more if a bound has more.
inline constexpr int kFractionDigits = 6;
// Most multiples of a number that are listed.
inline constexpr int64_t kMaxMultiples = 1024;

// Bounds as JSON numbers.
struct NumberBounds {
  std::optional<std::string> minimum = std::nullopt;
  std::optional<std::string> exclusive_minimum = std::nullopt;
  std::optional<std::string> maximum = std::nullopt;
  std::optional<std::string> exclusive_maximum = std::nullopt;
  // Above 0; of integers only.
  std::optional<int64_t> multiple_of = std::nullopt;

  bool empty() const {
    return !minimum && !exclusive_minimum && !maximum && !exclusive_maximum &&
           !multiple_of;
  }
};

// An expression for the JSON numbers within `bounds`, without exponents, of at
// most kMaxDigits digits; `integer`: without a point, too. Of numbers without
// bounds there are exponents of two digits. InvalidArgument
// (STRUCTURE_NOT_SUPPORTED): there is no such number, a bound is not a number,
// or there are more than kMaxMultiples multiples.
absl::StatusOr<std::string> NumberExpression(const NumberBounds& bounds,
                                             bool integer);

}  // namespace onegrid::grammar

#endif  // SERVICES_INFERENCE_GRAMMAR_NUMBER_GRAMMAR_H_
