#include "services/finetuner/text_corpus.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::finetuner {
namespace {

constexpr int kBuckets = 100;

// 0..99, from the first 32 bits of the text's SHA-256.
int BucketOf(absl::string_view document) {
  const std::string digest = common::Sha256Of(document);
  return static_cast<int>(std::stoul(digest.substr(0, 8), nullptr, 16) %
                          kBuckets);
}

}  // namespace

std::vector<absl::string_view> SplitDocuments(absl::string_view text) {
  std::vector<absl::string_view> documents;
  for (absl::string_view part : absl::StrSplit(text, '\f')) {
    part = absl::StripAsciiWhitespace(part);
    if (!part.empty()) documents.push_back(part);
  }
  return documents;
}

std::vector<TokenizedExample> WindowsOf(const model::Tokenizer& tokenizer,
                                        absl::string_view document,
                                        int64_t window_tokens) {
  const std::vector<int32_t> ids =
      tokenizer.Encode(document, /*add_bos=*/false, /*parse_control=*/false);
  const auto total = static_cast<int64_t>(ids.size());
  const int64_t body = window_tokens - 1;
  std::vector<TokenizedExample> windows;
  for (int64_t start = 0; start < total; start += body) {
    const int64_t count = std::min(body, total - start);
    if (start > 0 && count < window_tokens / 4) break;
    TokenizedExample window;
    window.tokens.reserve(static_cast<size_t>(count + 1));
    window.tokens.push_back(tokenizer.bos());
    window.tokens.insert(window.tokens.end(), ids.begin() + start,
                         ids.begin() + start + count);
    window.labels = {{1, count + 1}};
    windows.push_back(std::move(window));
  }
  return windows;
}

absl::StatusOr<TextSplit> ReadTextCorpus(absl::Span<const std::string> paths,
                                         const model::Tokenizer& tokenizer,
                                         int64_t window_tokens,
                                         int heldout_percent) {
  TextSplit split;
  for (const std::string& path : paths) {
    ASSIGN_OR_RETURN(const std::string text, common::ReadFile(path));
    const std::vector<absl::string_view> documents = SplitDocuments(text);
    if (documents.empty()) {
      return common::MakeError(absl::StatusCode::kInvalidArgument, "EMPTY_TEXT",
                               absl::StrCat(path, ": no text in the file"),
                               {{"path", path}});
    }
    for (const absl::string_view document : documents) {
      auto& part =
          BucketOf(document) < heldout_percent ? split.heldout : split.train;
      for (TokenizedExample& window :
           WindowsOf(tokenizer, document, window_tokens)) {
        part.push_back(std::move(window));
      }
    }
  }
  return split;
}

std::vector<TokenizedExample> SpreadWindows(
    absl::Span<const TokenizedExample> windows, int64_t count) {
  const auto total = static_cast<int64_t>(windows.size());
  if (count == 0 || count >= total) {
    return std::vector<TokenizedExample>(windows.begin(), windows.end());
  }
  std::vector<TokenizedExample> chosen;
  for (int64_t i = 0; i < count; ++i) {
    chosen.push_back(windows[static_cast<size_t>(i * total / count)]);
  }
  return chosen;
}

std::vector<PackedSequence> PackSingly(
    absl::Span<const TokenizedExample> examples) {
  std::vector<PackedSequence> sequences(examples.size());
  for (size_t i = 0; i < examples.size(); ++i) {
    AppendSegment(examples[i], static_cast<int64_t>(i),
                  static_cast<int64_t>(examples[i].tokens.size()),
                  &sequences[i]);
  }
  return sequences;
}

}  // namespace onegrid::finetuner
