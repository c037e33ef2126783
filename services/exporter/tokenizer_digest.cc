#include "services/exporter/tokenizer_digest.h"

#include <cstdint>
#include <vector>

#include "services/common/error_info.h"
#include "services/common/files.h"

namespace onegrid::exporter {
namespace {

template <typename T>
void AppendRaw(const T& value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace

absl::StatusOr<std::string> TokenizerDigest(const model::GgufFile& file) {
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
    AppendRaw(static_cast<uint64_t>(tokens[i].size()), bytes);
    bytes.append(tokens[i]);
    AppendRaw(scores[i], bytes);
    AppendRaw(types[i], bytes);
  }
  return common::Sha256Of(bytes);
}

}  // namespace onegrid::exporter
