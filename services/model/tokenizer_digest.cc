#include "services/model/tokenizer_digest.h"

#include <cstdint>
#include <vector>

#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::model {
namespace {

template <typename T>
void AppendRaw(const T& value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendToken(const std::string& text, float score, int32_t type,
                 std::string& out) {
  AppendRaw(static_cast<uint64_t>(text.size()), out);
  out.append(text);
  AppendRaw(score, out);
  AppendRaw(type, out);
}

}  // namespace

absl::StatusOr<std::string> TokenizerDigest(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::vector<std::string> tokens,
                   file.GetStrings("tokenizer.ggml.tokens"));
  ASSIGN_OR_RETURN(const std::vector<float> scores,
                   file.GetF32s("tokenizer.ggml.scores"));
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
  return common::Sha256Of(bytes);
}

std::string TokenizerDigest(const Vocabulary& vocabulary) {
  std::string bytes;
  for (const VocabularyToken& token : vocabulary.tokens) {
    AppendToken(token.text, token.score, static_cast<int32_t>(token.type),
                bytes);
  }
  return common::Sha256Of(bytes);
}

}  // namespace onegrid::model
