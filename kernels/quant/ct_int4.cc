#include "kernels/quant/ct_int4.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

constexpr int kPerWord = 8;

// Words in a row; does not overflow for any non-negative cols.
int64_t RowWords(int64_t cols) {
  return cols / kPerWord + (cols % kPerWord != 0 ? 1 : 0);
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> PackCtInt4(absl::Span<const int8_t> codes,
                                                int64_t rows, int64_t cols) {
  absl::Status status = CheckMatrixSize("int4 codes", rows, cols, 1, 1,
                                        static_cast<int64_t>(codes.size()));
  if (!status.ok()) return status;
  const int64_t row_words = RowWords(cols);
  std::vector<int32_t> words(rows * row_words);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const int code = codes[r * cols + i];
      if (code < -8 || code > 7) {
        return absl::InvalidArgumentError(
            absl::StrCat("int4 codes: ", code, " at row ", r, ", column ", i,
                         " is outside -8..7"));
      }
      int32_t& word = words[r * row_words + i / kPerWord];
      word = static_cast<int32_t>(static_cast<uint32_t>(word) |
                                  static_cast<uint32_t>(code + 8)
                                      << (4 * (i % kPerWord)));
    }
  }
  return words;
}

absl::StatusOr<std::vector<int8_t>> UnpackCtInt4(
    absl::Span<const int32_t> words, int64_t rows, int64_t cols) {
  if (cols < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("int4 words: negative column count ", cols));
  }
  const int64_t row_words = RowWords(cols);
  absl::Status status = CheckMatrixSize("int4 words", rows, row_words, 1, 1,
                                        static_cast<int64_t>(words.size()));
  if (!status.ok()) return status;
  std::vector<int8_t> codes(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const auto word =
          static_cast<uint32_t>(words[r * row_words + i / kPerWord]);
      codes[r * cols + i] =
          static_cast<int8_t>(((word >> (4 * (i % kPerWord))) & 15u)) - 8;
    }
  }
  return codes;
}

}  // namespace onegrid::quant
