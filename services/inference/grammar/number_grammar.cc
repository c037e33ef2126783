#include "services/inference/grammar/number_grammar.h"

#include <algorithm>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"

namespace onegrid::grammar {
namespace {

// The largest number of kMaxDigits digits, plus one.
constexpr int64_t kAbove = 1'000'000'000'000'000;

// mantissa times ten to the power of exponent.
struct Decimal {
  int64_t mantissa = 0;
  int exponent = 0;
};

absl::StatusOr<Decimal> ParseDecimal(absl::string_view text) {
  const absl::Status wrong =
      NotSupported(absl::StrCat("the bound ", text, " of a number"));
  Decimal decimal;
  const size_t e = text.find_first_of("eE");
  if (e != absl::string_view::npos) {
    absl::string_view power = text.substr(e + 1);
    if (!power.empty() && power[0] == '+') power.remove_prefix(1);
    if (!absl::SimpleAtoi(power, &decimal.exponent)) return wrong;
    text = text.substr(0, e);
  }
  std::string digits;
  const size_t point = text.find('.');
  if (point == absl::string_view::npos) {
    digits = std::string(text);
  } else {
    digits = absl::StrCat(text.substr(0, point), text.substr(point + 1));
    decimal.exponent -= static_cast<int>(text.size() - point - 1);
  }
  if (!absl::SimpleAtoi(digits, &decimal.mantissa)) return wrong;
  return decimal;
}

// `decimal` times ten to the power of `shift`, rounded down, within
// -kAbove..kAbove; whether that is exact.
int64_t Floor(const Decimal& decimal, int shift, bool* exact) {
  int64_t value = decimal.mantissa;
  *exact = true;
  for (int power = decimal.exponent + shift; power > 0 && value != 0; --power) {
    if (value >= kAbove || value <= -kAbove) break;
    value *= 10;
  }
  for (int power = decimal.exponent + shift; power < 0; ++power) {
    const int64_t last = value % 10;
    *exact = *exact && last == 0;
    value = value / 10 - (last < 0 ? 1 : 0);
    if (value == 0 || value == -1) {
      // More divisions change nothing.
      *exact = *exact && (value == 0 || power == -1);
      break;
    }
  }
  if (value >= kAbove || value <= -kAbove) {
    return value > 0 ? kAbove : -kAbove;
  }
  return value;
}

// The numbers of at least `width` digits from `low` to `high`, both
// 0..kAbove-1, of which the last `fraction` are after the point.
class DigitRange {
 public:
  explicit DigitRange(int fraction) : fraction_(fraction) {}

  std::vector<std::string> Choices(int64_t low, int64_t high) {
    std::vector<std::string> choices;
    int64_t first = 0;  // of those of this width
    int64_t last = 9;
    for (int width = 1; width <= kMaxDigits; ++width) {
      if (width > fraction_ && high >= first && low <= last) {
        choices.push_back(Between(Digits(std::max(low, first), width),
                                  Digits(std::min(high, last), width), width));
      }
      // Only those of the least width begin with zeros.
      if (width > fraction_) first = last + 1;
      last = last * 10 + 9;
    }
    return choices;
  }

 private:
  static std::string Digits(int64_t value, int width) {
    const std::string digits = absl::StrCat(value);
    return std::string(width - digits.size(), '0') + digits;
  }

  // What is before the digit that `left` digits follow.
  std::string Point(size_t left) const {
    return fraction_ > 0 && static_cast<int>(left) + 1 == fraction_ ? "\".\" "
                                                                    : "";
  }

  std::string AnyDigits(size_t count) const {
    const auto after = std::min(count, static_cast<size_t>(fraction_));
    std::string out;
    if (count > after) {
      absl::StrAppend(&out, " ",
                      Repeated("[0-9]", count - after, count - after));
    }
    if (after == 0) return out;
    // The point comes only where this begins before it.
    if (count >= static_cast<size_t>(fraction_))
      absl::StrAppend(&out, " \".\"");
    absl::StrAppend(&out, " ", Repeated("[0-9]", after, after));
    return out;
  }

  std::string Between(absl::string_view low, absl::string_view high,
                      size_t width) const {
    if (low.empty()) return "";
    const size_t left = low.size() - 1;
    const bool whole = low == std::string(low.size(), '0') &&
                       high == std::string(high.size(), '9');
    if (whole) return absl::StrCat("(", AnyDigits(low.size()), ")");
    const auto with = [&](char from, char to, const std::string& rest) {
      const std::string digit =
          from == to ? absl::StrCat("\"", absl::string_view(&from, 1), "\"")
                     : absl::StrCat("[", absl::string_view(&from, 1), "-",
                                    absl::string_view(&to, 1), "]");
      return absl::StrCat(Point(left), digit, " ", rest);
    };
    const std::string zeros(left, '0');
    const std::string nines(left, '9');
    const absl::string_view low_rest = low.substr(1);
    const absl::string_view high_rest = high.substr(1);
    if (low[0] == high[0]) {
      return absl::StrCat(
          "(", with(low[0], low[0], Between(low_rest, high_rest, width)), ")");
    }
    std::vector<std::string> choices;
    char from = low[0];
    char to = high[0];
    if (low_rest != zeros) {
      choices.push_back(with(from, from, Between(low_rest, nines, width)));
      ++from;
    }
    std::string last;
    if (high_rest != nines) {
      last = with(to, to, Between(zeros, high_rest, width));
      --to;
    }
    if (from <= to) choices.push_back(with(from, to, AnyDigits(left)));
    if (!last.empty()) choices.push_back(last);
    return AnyOf(choices);
  }

  const int fraction_;
};

// The two ends with `fraction` digits after the point, as integers.
absl::Status Ends(const NumberBounds& bounds, int fraction, int64_t* low,
                  int64_t* high) {
  *low = -kAbove + 1;
  *high = kAbove - 1;
  bool exact = false;
  const auto floor = [&](const std::string& bound) -> absl::StatusOr<int64_t> {
    ASSIGN_OR_RETURN(const Decimal decimal, ParseDecimal(bound));
    return Floor(decimal, fraction, &exact);
  };
  if (bounds.minimum) {
    ASSIGN_OR_RETURN(const int64_t value, floor(*bounds.minimum));
    *low = std::max(*low, exact ? value : value + 1);
  }
  if (bounds.exclusive_minimum) {
    ASSIGN_OR_RETURN(const int64_t value, floor(*bounds.exclusive_minimum));
    *low = std::max(*low, value + 1);
  }
  if (bounds.maximum) {
    ASSIGN_OR_RETURN(const int64_t value, floor(*bounds.maximum));
    *high = std::min(*high, value);
  }
  if (bounds.exclusive_maximum) {
    ASSIGN_OR_RETURN(const int64_t value, floor(*bounds.exclusive_maximum));
    *high = std::min(*high, exact ? value - 1 : value);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Multiples(int64_t low, int64_t high, int64_t of) {
  const int64_t first = low / of + (low > 0 && low % of != 0 ? 1 : 0);
  const int64_t last = high / of - (high < 0 && high % of != 0 ? 1 : 0);
  if (last - first >= kMaxMultiples) {
    return NotSupported(absl::StrCat("multipleOf ", of,
                                     " where the bounds hold more than ",
                                     kMaxMultiples, " multiples"));
  }
  std::vector<std::string> choices;
  for (int64_t i = first; i <= last; ++i) {
    choices.push_back(Literal(absl::StrCat(i * of)));
  }
  if (choices.empty()) return NotSupported("bounds that hold no multiple");
  return AnyOf(choices);
}

// Digits after the point of the bounds at most.
absl::StatusOr<int> FractionDigits(const NumberBounds& bounds) {
  int digits = 0;
  for (const auto* bound : {&bounds.minimum, &bounds.exclusive_minimum,
                            &bounds.maximum, &bounds.exclusive_maximum}) {
    if (!bound->has_value()) continue;
    ASSIGN_OR_RETURN(const Decimal decimal, ParseDecimal(**bound));
    digits = std::max(digits, -decimal.exponent);
  }
  return std::clamp(digits + 1, kFractionDigits, kMaxDigits - 1);
}

}  // namespace

absl::StatusOr<std::string> NumberExpression(const NumberBounds& bounds,
                                             bool integer) {
  if (bounds.empty()) {
    const std::string whole =
        absl::StrCat("(\"-\"? (\"0\" | [1-9] [0-9]{0,", kMaxDigits - 1, "})");
    if (integer) return absl::StrCat(whole, ")");
    return absl::StrCat(whole, " (\".\" [0-9]{1,", kMaxDigits,
                        "})? ([eE] [\\+\\-]? [0-9]{1,2})?)");
  }
  int fractions = 0;
  if (!integer) {
    ASSIGN_OR_RETURN(fractions, FractionDigits(bounds));
  }
  std::vector<std::string> choices;
  for (int fraction = 0; fraction <= fractions; ++fraction) {
    int64_t low = 0;
    int64_t high = 0;
    RETURN_IF_ERROR(Ends(bounds, fraction, &low, &high));
    if (low > high) continue;
    if (bounds.multiple_of) return Multiples(low, high, *bounds.multiple_of);
    DigitRange range(fraction);
    for (std::string& choice : range.Choices(std::max<int64_t>(low, 0), high)) {
      choices.push_back(std::move(choice));
    }
    if (low >= 0) continue;
    for (const std::string& choice :
         range.Choices(std::max<int64_t>(-high, 1), -low)) {
      choices.push_back(absl::StrCat("\"-\" ", choice));
    }
  }
  if (choices.empty()) return NotSupported("bounds that hold no number");
  return AnyOf(choices);
}

}  // namespace onegrid::grammar
