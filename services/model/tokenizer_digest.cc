#include "services/model/tokenizer_digest.h"

#include <cstdint>
#include <vector>

#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/merge_list.h"

namespace onegrid::model {
namespace {

template <typename T>
void AppendRaw(const T& value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(const std::string& text, std::string& out) {
  AppendRaw(static_cast<uint64_t>(text.size()), out);
  out.append(text);
}

void AppendToken(const std::string& text, float score, int32_t type,
                 std::string& out) {
  AppendText(text, out);
  AppendRaw(score, out);
  AppendRaw(type, out);
}

void AppendMerges(const std::vector<std::string>& lines, std::string& out) {
  AppendRaw(static_cast<uint64_t>(lines.size()), out);
  for (const std::string& line : lines) AppendText(line, out);
}

// No more than a tokenizer's arrays need be in the file.
bool HasMerges(const GgufFile& file) {
  const auto kind = file.GetString("tokenizer.ggml.model");
  return kind.ok() && *kind == "gemma4";
}

}  // namespace

absl::StatusOr<std::string> TokenizerDigest(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::vector<std::string> tokens,
                   file.GetStrings("tokenizer.ggml.tokens"));
  std::vector<float> scores(tokens.size(), kNoScore);
  const bool has_merges = HasMerges(file);
  if (!has_merges) {
    ASSIGN_OR_RETURN(scores, file.GetF32s("tokenizer.ggml.scores"));
  }
  ASSIGN_OR_RETURN(const std::vector<int32_t> types,
                   file.GetI32s("tokenizer.ggml.token_type"));
  if (scores.size() != tokens.size() || types.size() != tokens.size()) {
    return common::MakeError(absl::StatusCode::kInvalidArgument, "CORRUPT_FILE",
                             "tokenizer.ggml.tokens, scores and token_type "
                             "differ in length");
  }
  std::string bytes;
  for (size_t i = 0; i < tokens.size(); ++i) {
    AppendToken(tokens[i], scores[i], types[i], bytes);
  }
  if (has_merges) {
    ASSIGN_OR_RETURN(const std::vector<std::string> merges,
                     file.GetStrings("tokenizer.ggml.merges"));
    AppendMerges(merges, bytes);
  }
  return common::Sha256Of(bytes);
}

std::string TokenizerDigest(const Vocabulary& vocabulary) {
  std::string bytes;
  const bool has_merges = vocabulary.kind == TokenizerKind::kMerges;
  for (const VocabularyToken& token : vocabulary.tokens) {
    AppendToken(token.text, has_merges ? kNoScore : token.score,
                static_cast<int32_t>(token.type), bytes);
  }
  if (has_merges) {
    AppendMerges(MergeLines(vocabulary), bytes);
  }
  return common::Sha256Of(bytes);
}

}  // namespace onegrid::model
