#include "services/model/hf_vocabulary.h"

#include <algorithm>
#include <cstdint>
#include <optional>
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
#include "services/model/merge_list.h"
#include "services/model/sentencepiece_reader.h"
#include "services/model/tokenizer_json.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::json;

// What llama.cpp's converter gives to missing tokens.
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

// The contents of a file of the folder; none if there is none.
absl::StatusOr<std::optional<std::string>> ReadOptional(
    const std::string& path) {
  auto text = common::ReadFile(path);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  return *std::move(text);
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
      vocabulary.tokens[id] = {text, kNoScore, TokenType::kControl};
    } else {
      vocabulary.tokens[id] = {UnescapeSpaces(text), kNoScore,
                               TokenType::kUserDefined};
    }
  }
  return absl::OkStatus();
}

// {"eos_token": "<eos>" or {"content": "<eos>", ...}, ...}
absl::Status NameTokens(const Json& config, const std::string& path,
                        Vocabulary& vocabulary) {
  const std::pair<const char*, int32_t*> roles[] = {
      {"bos_token", &vocabulary.bos_id},
      {"eos_token", &vocabulary.eos_id},
      {"pad_token", &vocabulary.pad_id},
      {"mask_token", &vocabulary.mask_id}};
  for (const auto& [key, id] : roles) {
    if (!config.contains(key) || config[key].is_null()) continue;
    const Json& entry = config[key];
    const Json name = entry.is_object() && entry.contains("content")
                          ? entry["content"]
                          : entry;
    if (!name.is_string()) {
      return CorruptFile(path, absl::StrCat(key, " is not a token"));
    }
    const std::vector<VocabularyToken>& tokens = vocabulary.tokens;
    const auto found = std::find_if(
        tokens.begin(), tokens.end(), [&](const VocabularyToken& token) {
          return token.text == name.get_ref<const std::string&>();
        });
    if (found == tokens.end()) {
      return CorruptFile(path, absl::StrCat(key, ": no token '",
                                            name.get<std::string>(), "'"));
    }
    *id = static_cast<int32_t>(found - tokens.begin());
  }
  return absl::OkStatus();
}

absl::Status ReadConfig(const std::string& path, HfVocabulary& tokenizer) {
  ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadOptional(path));
  if (!text.has_value()) return absl::OkStatus();
  const Json config = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return CorruptFile(path, "not a JSON object");
  if (tokenizer.vocabulary.kind == TokenizerKind::kMerges) {
    RETURN_IF_ERROR(NameTokens(config, path, tokenizer.vocabulary));
  } else if (config.contains("added_tokens_decoder")) {
    RETURN_IF_ERROR(
        AddTokens(config["added_tokens_decoder"], path, tokenizer.vocabulary));
  }
  if (config.contains("chat_template") && config["chat_template"].is_string()) {
    tokenizer.chat_template = config["chat_template"].get<std::string>();
  }
  return absl::OkStatus();
}

// Of generation_config.json, which need not be there.
absl::Status ReadSuppressed(const std::string& path, Vocabulary& vocabulary) {
  ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadOptional(path));
  if (!text.has_value()) return absl::OkStatus();
  const Json config = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return CorruptFile(path, "not a JSON object");
  if (!config.contains("suppress_tokens") ||
      config["suppress_tokens"].is_null()) {
    return absl::OkStatus();
  }
  const Json& ids = config["suppress_tokens"];
  const auto size = static_cast<int64_t>(vocabulary.tokens.size());
  if (!ids.is_array()) {
    return CorruptFile(path, "suppress_tokens: expected a list");
  }
  for (const Json& id : ids) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 ||
        id.get<int64_t>() >= size) {
      return CorruptFile(
          path, absl::StrCat("suppress_tokens: expected tokens below ", size));
    }
    vocabulary.suppressed.push_back(id.get<int32_t>());
  }
  return absl::OkStatus();
}

// The vocabulary of tokenizer.model.
absl::StatusOr<Vocabulary> ReadModelProto(const std::string& path,
                                          int64_t vocab_size) {
  ASSIGN_OR_RETURN(const std::string bytes, common::ReadFile(path));
  ASSIGN_OR_RETURN(Vocabulary vocabulary,
                   VocabularyFromModelProto(bytes, path));
  const auto pieces = static_cast<int64_t>(vocabulary.tokens.size());
  if (pieces > vocab_size) {
    return CorruptFile(path,
                       absl::StrCat("has ", pieces, " tokens, the embedding ",
                                    vocab_size, " rows"));
  }
  for (VocabularyToken& token : vocabulary.tokens) {
    if (token.type == TokenType::kUserDefined && LooksSpecial(token.text)) {
      token.type = TokenType::kControl;
    }
  }
  return vocabulary;
}

absl::StatusOr<Vocabulary> ReadTokens(const std::string& folder,
                                      int64_t vocab_size) {
  auto proto =
      ReadModelProto(absl::StrCat(folder, "/tokenizer.model"), vocab_size);
  if (!absl::IsNotFound(proto.status())) return proto;
  const std::string path = absl::StrCat(folder, "/tokenizer.json");
  ASSIGN_OR_RETURN(const std::optional<std::string> text, ReadOptional(path));
  if (!text.has_value()) return proto;
  ASSIGN_OR_RETURN(Vocabulary vocabulary,
                   VocabularyFromTokenizerJson(*text, path, vocab_size));
  // Gemma 4's merges are its own; Gemma 3's stand for a SentencePiece model.
  if (absl::StrContains(*text, "\"<|turn>\"")) return vocabulary;
  for (VocabularyToken& token : vocabulary.tokens) {
    if (token.type != TokenType::kUserDefined) continue;
    if (LooksSpecial(token.text)) {
      token.type = TokenType::kControl;
    } else {
      token.text = UnescapeSpaces(token.text);
    }
  }
  RETURN_IF_ERROR(ScoreByMerges(path, &vocabulary));
  return vocabulary;
}

}  // namespace

absl::StatusOr<HfVocabulary> ReadHfVocabulary(const std::string& folder,
                                              int64_t vocab_size) {
  HfVocabulary tokenizer;
  ASSIGN_OR_RETURN(tokenizer.vocabulary, ReadTokens(folder, vocab_size));
  const bool has_merges = tokenizer.vocabulary.kind == TokenizerKind::kMerges;
  std::vector<VocabularyToken>& tokens = tokenizer.vocabulary.tokens;
  for (auto id = static_cast<int64_t>(tokens.size()); id < vocab_size; ++id) {
    tokens.push_back({absl::StrCat("[PAD", id, "]"),
                      has_merges ? kNoScore : kPadScore, TokenType::kUnused});
  }
  const std::string config_path =
      absl::StrCat(folder, "/tokenizer_config.json");
  RETURN_IF_ERROR(ReadConfig(config_path, tokenizer));
  ASSIGN_OR_RETURN(std::optional<std::string> chat_template,
                   ReadOptional(absl::StrCat(folder, "/chat_template.jinja")));
  if (chat_template.has_value() && !chat_template->empty()) {
    tokenizer.chat_template = *std::move(chat_template);
  }
  RETURN_IF_ERROR(
      CheckTokens(config_path, "added tokens", tokenizer.vocabulary));
  RETURN_IF_ERROR(ReadSuppressed(
      absl::StrCat(folder, "/generation_config.json"), tokenizer.vocabulary));
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
      {"tokenizer.ggml.add_space_prefix", false},
  };
  if (vocabulary.kind == TokenizerKind::kMerges) {
    metadata["tokenizer.ggml.model"] = std::string("gemma4");
    metadata["tokenizer.ggml.merges"] = MergeLines(vocabulary);
    if (vocabulary.mask_id >= 0) {
      metadata["tokenizer.ggml.mask_token_id"] =
          static_cast<uint32_t>(vocabulary.mask_id);
    }
  } else {
    metadata["tokenizer.ggml.model"] = std::string("llama");
    metadata["tokenizer.ggml.pre"] = std::string("default");
    metadata["tokenizer.ggml.add_eos_token"] = false;
  }
  if (!vocabulary.suppressed.empty()) {
    metadata["tokenizer.ggml.suppress_tokens"] = vocabulary.suppressed;
  }
  if (!tokenizer.chat_template.empty()) {
    metadata["tokenizer.chat_template"] = tokenizer.chat_template;
  }
  return metadata;
}

}  // namespace onegrid::model
