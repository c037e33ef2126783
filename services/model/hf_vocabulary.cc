#include "services/model/hf_vocabulary.h"

#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/common/files.h"
#include "services/model/mapped_file.h"
#include "services/model/sentencepiece_reader.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::json;

// What llama.cpp's converter gives to added and to missing tokens.
constexpr float kAddedScore = -1000.0f;
constexpr float kPadScore = -10000.0f;

// The names by which the converter takes a token for a control token although
// it is not marked special.
bool LooksSpecial(absl::string_view text) {
  static const auto* names =
      new std::set<absl::string_view>{"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
  return names->count(text) > 0 ||
         (absl::StartsWith(text, "<|") && absl::EndsWith(text, "|>")) ||
         (absl::StartsWith(text, "<unused") && absl::EndsWith(text, ">"));
}

// The contents of a file of the folder; empty if there is none.
absl::StatusOr<std::string> ReadOptional(const std::string& path) {
  auto text = common::ReadFile(path);
  if (absl::IsNotFound(text.status())) return std::string();
  return text;
}

// added_tokens_decoder: {"2": {"content": "<bos>", "special": true, ...}, ...}
absl::Status AddTokens(const Json& decoder, const std::string& path,
                       Vocabulary& vocabulary) {
  if (!decoder.is_object()) {
    return CorruptFile(path, "added_tokens_decoder is not an object");
  }
  for (const auto& [key, entry] : decoder.items()) {
    int64_t id = 0;
    if (!absl::SimpleAtoi(key, &id) || id < 0 || !entry.is_object() ||
        !entry.contains("content") || !entry["content"].is_string()) {
      return CorruptFile(path, absl::StrCat("added_tokens_decoder: the entry '",
                                            key, "' is not a token"));
    }
    // Tokens of other inputs than text lie behind the embedding.
    if (id >= static_cast<int64_t>(vocabulary.tokens.size())) continue;
    const std::string text = entry["content"].get<std::string>();
    const bool special = entry.contains("special") &&
                         entry["special"].is_boolean() &&
                         entry["special"].get<bool>();
    if (special || LooksSpecial(text)) {
      vocabulary.tokens[id] = {text, kAddedScore, TokenType::kControl};
    } else {
      vocabulary.tokens[id] = {UnescapeSpaces(text), kAddedScore,
                               TokenType::kUserDefined};
    }
  }
  return absl::OkStatus();
}

absl::Status ReadConfig(const std::string& path, HfVocabulary& tokenizer) {
  ASSIGN_OR_RETURN(const std::string text, ReadOptional(path));
  if (text.empty()) return absl::OkStatus();
  const Json config = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return CorruptFile(path, "not a JSON object");
  if (config.contains("added_tokens_decoder")) {
    RETURN_IF_ERROR(
        AddTokens(config["added_tokens_decoder"], path, tokenizer.vocabulary));
  }
  if (config.contains("chat_template") && config["chat_template"].is_string()) {
    tokenizer.chat_template = config["chat_template"].get<std::string>();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<HfVocabulary> ReadHfVocabulary(const std::string& folder,
                                              int64_t vocab_size) {
  const std::string model_path = absl::StrCat(folder, "/tokenizer.model");
  ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(model_path));
  HfVocabulary tokenizer;
  ASSIGN_OR_RETURN(tokenizer.vocabulary,
                   VocabularyFromModelProto(bytes, model_path));
  std::vector<VocabularyToken>& tokens = tokenizer.vocabulary.tokens;
  const auto pieces = static_cast<int64_t>(tokens.size());
  if (pieces > vocab_size) {
    return CorruptFile(model_path,
                       absl::StrCat("has ", pieces, " tokens, the embedding ",
                                    vocab_size, " rows"));
  }
  for (VocabularyToken& token : tokens) {
    if (token.type == TokenType::kUserDefined && LooksSpecial(token.text)) {
      token.type = TokenType::kControl;
    }
  }
  for (int64_t id = pieces; id < vocab_size; ++id) {
    tokens.push_back(
        {absl::StrCat("[PAD", id, "]"), kPadScore, TokenType::kUnused});
  }
  const std::string config_path =
      absl::StrCat(folder, "/tokenizer_config.json");
  RETURN_IF_ERROR(ReadConfig(config_path, tokenizer));
  ASSIGN_OR_RETURN(std::string chat_template,
                   ReadOptional(absl::StrCat(folder, "/chat_template.jinja")));
  if (!chat_template.empty()) {
    tokenizer.chat_template = std::move(chat_template);
  }
  RETURN_IF_ERROR(
      CheckTokens(config_path, "added tokens", tokenizer.vocabulary));
  return tokenizer;
}

std::map<std::string, GgufValue> TokenizerMetadata(
    const HfVocabulary& tokenizer) {
  const Vocabulary& vocabulary = tokenizer.vocabulary;
  std::vector<std::string> texts;
  std::vector<float> scores;
  std::vector<int32_t> types;
  for (const VocabularyToken& token : vocabulary.tokens) {
    texts.push_back(token.text);
    scores.push_back(token.score);
    types.push_back(static_cast<int32_t>(token.type));
  }
  std::map<std::string, GgufValue> metadata = {
      {"tokenizer.ggml.model", std::string("llama")},
      {"tokenizer.ggml.pre", std::string("default")},
      {"tokenizer.ggml.tokens", std::move(texts)},
      {"tokenizer.ggml.scores", std::move(scores)},
      {"tokenizer.ggml.token_type", std::move(types)},
      {"tokenizer.ggml.bos_token_id", static_cast<uint32_t>(vocabulary.bos_id)},
      {"tokenizer.ggml.eos_token_id", static_cast<uint32_t>(vocabulary.eos_id)},
      {"tokenizer.ggml.unknown_token_id",
       static_cast<uint32_t>(vocabulary.unknown_id)},
      {"tokenizer.ggml.padding_token_id",
       static_cast<uint32_t>(vocabulary.pad_id)},
      {"tokenizer.ggml.add_bos_token", true},
      {"tokenizer.ggml.add_eos_token", false},
      {"tokenizer.ggml.add_space_prefix", false},
  };
  if (!tokenizer.chat_template.empty()) {
    metadata["tokenizer.chat_template"] = tokenizer.chat_template;
  }
  return metadata;
}

}  // namespace onegrid::model
