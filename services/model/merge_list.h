// The merges of a vocabulary, as files list them: pairs of texts, the pair that
// merges first at the front.
#ifndef SERVICES_MODEL_MERGE_LIST_H_
#define SERVICES_MODEL_MERGE_LIST_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/model/vocabulary.h"

namespace onegrid::model {

using MergeHalves = std::pair<absl::string_view, absl::string_view>;

// The halves of "left right", parted at the first space behind the first byte,
// as llama.cpp parts them. Both empty if the line is not of two parts.
MergeHalves SplitMerge(absl::string_view line);

// Sets the merges of `vocabulary`, whose tokens are checked (CheckTokens).
// DataLoss (CORRUPT_FILE), naming `path` and the merge as `list`[i]: no merges;
// a merge that is not of two parts, or of which a half or the joined text is no
// token, which Hugging Face's tokenizers refuses too; or a pair that occurs
// twice, of which llama.cpp takes the first and tokenizers the last.
absl::Status ResolveMerges(const std::string& path, absl::string_view list,
                           absl::Span<const MergeHalves> merges,
                           Vocabulary* vocabulary);

// The same of lines "left right".
absl::Status ResolveMergeLines(const std::string& path, absl::string_view list,
                               absl::Span<const std::string> lines,
                               Vocabulary* vocabulary);

// The merges as lines "left right".
std::vector<std::string> MergeLines(const Vocabulary& vocabulary);

// Of a vocabulary of the kind kScores: each way to make a normal token of two,
// in the order in which SentencePiece would merge, best score first. The texts
// are the vocabulary's.
std::vector<MergeHalves> MergesOfScores(const Vocabulary& vocabulary);

// The reverse: makes a vocabulary of the kind kMerges, as the tokenizer.json of
// a SentencePiece model gives it, one of the kind kScores with the same ids for
// every text. Scores are 0, -1, -2 and so on in the order of the merges; that
// of a token that nothing merges into means nothing and follows, by id.
// Unimplemented (UNSUPPORTED_TOKENIZER), naming `path`: merges that no scores
// give, since those of one token lie apart or not all ways to make it are
// there.
absl::Status ScoreByMerges(const std::string& path, Vocabulary* vocabulary);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_MERGE_LIST_H_
