#include "kernels/quant/ct_pack.h"

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "kernels/quant/shape_check.h"

namespace onegrid::quant {
namespace {

constexpr int kWordBits = 32;

absl::Status CheckBits(int bits) {
  if (bits == 2 || bits == 4 || bits == 8) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("compressed-tensors codes of ", bits,
                   " bits: only 2, 4 and 8 divide a "
                   "word"));
}

// Words in a row; does not overflow for any non-negative cols.
int64_t RowWords(int64_t cols, int bits) {
  const int per_word = kWordBits / bits;
  return cols / per_word + (cols % per_word != 0 ? 1 : 0);
}

}  // namespace

int CodeBits(const Grid& grid) {
  int bits = 2;
  while (grid.max_code >= 1 << (bits - 1)) bits *= 2;
  return bits;
}

absl::StatusOr<std::vector<int32_t>> PackCt(absl::Span<const int8_t> codes,
                                            int64_t rows, int64_t cols,
                                            int bits) {
  absl::Status status = CheckBits(bits);
  if (!status.ok()) return status;
  status = CheckMatrixSize("compressed-tensors codes", rows, cols, 1, 1,
                           static_cast<int64_t>(codes.size()));
  if (!status.ok()) return status;
  const int offset = 1 << (bits - 1);
  const int per_word = kWordBits / bits;
  const int64_t row_words = RowWords(cols, bits);
  std::vector<int32_t> words(rows * row_words);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const int code = codes[r * cols + i];
      if (code < -offset || code >= offset) {
        return absl::InvalidArgumentError(absl::StrCat(
            "compressed-tensors codes: ", code, " at row ", r, ", column ", i,
            " is outside ", -offset, "..", offset - 1));
      }
      int32_t& word = words[r * row_words + i / per_word];
      word = static_cast<int32_t>(static_cast<uint32_t>(word) |
                                  static_cast<uint32_t>(code + offset)
                                      << (bits * (i % per_word)));
    }
  }
  return words;
}

absl::StatusOr<std::vector<int8_t>> UnpackCt(absl::Span<const int32_t> words,
                                             int64_t rows, int64_t cols,
                                             int bits) {
  absl::Status status = CheckBits(bits);
  if (!status.ok()) return status;
  if (cols < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("compressed-tensors words: negative column count ", cols));
  }
  const int per_word = kWordBits / bits;
  const int64_t row_words = RowWords(cols, bits);
  status = CheckMatrixSize("compressed-tensors words", rows, row_words, 1, 1,
                           static_cast<int64_t>(words.size()));
  if (!status.ok()) return status;
  const int offset = 1 << (bits - 1);
  const uint32_t mask = (1u << bits) - 1;
  std::vector<int8_t> codes(rows * cols);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols; ++i) {
      const auto word =
          static_cast<uint32_t>(words[r * row_words + i / per_word]);
      const auto code =
          static_cast<int>((word >> (bits * (i % per_word))) & mask);
      codes[r * cols + i] = static_cast<int8_t>(code - offset);
    }
  }
  return codes;
}

}  // namespace onegrid::quant
