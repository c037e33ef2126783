// Plain text as windows of tokens, for general tuning, calibration and
// perplexity. Free of LibTorch.
//
// A text file holds documents; a form feed starts the next one. A document is
// tokenized whole and cut into windows; no window spans two documents.
#ifndef SERVICES_FINETUNER_TEXT_CORPUS_H_
#define SERVICES_FINETUNER_TEXT_CORPUS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/finetuner/packing.h"
#include "services/model/tokenizer.h"

namespace onegrid::finetuner {

// The documents of a text, in order, without white space at their ends; empty
// ones are left out. They point into `text`.
std::vector<absl::string_view> SplitDocuments(absl::string_view text);

// One document as windows of at most `window_tokens` >= 2: BOS and the tokens
// that follow those of the window before. Every token after BOS is a label. The
// last window is left out if it has less than a quarter of the tokens and is
// not the first.
std::vector<TokenizedExample> WindowsOf(const model::Tokenizer& tokenizer,
                                        absl::string_view document,
                                        int64_t window_tokens);

// A corpus in two parts.
struct TextSplit {
  std::vector<TokenizedExample> train;
  std::vector<TokenizedExample> heldout;
};

// The windows of all documents of the files, in order. A document is held out
// if a hash of its text falls into one of `heldout_percent` (0..100) of 100
// buckets, so that its part does not depend on the other documents.
// InvalidArgument (EMPTY_TEXT; path): a file without a document. Otherwise the
// errors of common::ReadFile.
absl::StatusOr<TextSplit> ReadTextCorpus(absl::Span<const std::string> paths,
                                         const model::Tokenizer& tokenizer,
                                         int64_t window_tokens,
                                         int heldout_percent);

// `count` windows spread evenly over `windows`, in order; all if there are not
// more. 0: all.
std::vector<TokenizedExample> SpreadWindows(
    absl::Span<const TokenizedExample> windows, int64_t count);

// Each example as a sequence of its own.
std::vector<PackedSequence> PackSingly(
    absl::Span<const TokenizedExample> examples);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_TEXT_CORPUS_H_
