#include "services/model/hf_tokenizer.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/merge_list.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::ordered_json;

// JSON text; bytes that are not UTF-8, which a token may be, are replaced.
std::string Text(const Json& json, int indent = -1) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string Quoted(absl::string_view text) {
  return Text(Json(std::string(text)));
}

bool IsControl(const Vocabulary& vocabulary, int64_t id) {
  const TokenType type = vocabulary.tokens[id].type;
  return type == TokenType::kControl || type == TokenType::kUnknown ||
         id == vocabulary.unknown_id;
}

std::string AddedTokensJson(const Vocabulary& vocabulary) {
  std::string out = "[";
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const bool control = IsControl(vocabulary, id);
    const VocabularyToken& token = vocabulary.tokens[id];
    if (!control && token.type != TokenType::kUserDefined) continue;
    absl::StrAppend(&out, out.size() > 1 ? ",\n" : "\n", "{\"id\":", id,
                    ",\"content\":", Quoted(token.text),
                    ",\"single_word\":false,\"lstrip\":false,"
                    "\"rstrip\":false,\"normalized\":false,\"special\":",
                    control ? "true}" : "false}");
  }
  return out + "]";
}

std::string VocabJson(const Vocabulary& vocabulary) {
  std::string out = "{";
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    absl::StrAppend(&out, id > 0 ? ",\n" : "\n",
                    Quoted(vocabulary.tokens[id].text), ":", id);
  }
  return out + "}";
}

// Appends a merge to a list that is not closed yet.
void AppendMerge(absl::string_view left, absl::string_view right,
                 std::string* list) {
  absl::StrAppend(list, list->size() > 1 ? ",\n[" : "\n[", Quoted(left), ",",
                  Quoted(right), "]");
}

std::string ListedMergesJson(const Vocabulary& vocabulary) {
  std::string out = "[";
  for (const VocabularyMerge& merge : vocabulary.merges) {
    AppendMerge(vocabulary.tokens[merge.left].text,
                vocabulary.tokens[merge.right].text, &out);
  }
  return out + "]";
}

std::string MergesOfScoresJson(const Vocabulary& vocabulary) {
  std::string out = "[";
  for (const auto& [left, right] : MergesOfScores(vocabulary)) {
    AppendMerge(left, right, &out);
  }
  return out + "]";
}

std::string TokenizerJson(const Vocabulary& vocabulary) {
  const std::string merges = vocabulary.kind == TokenizerKind::kMerges
                                 ? ListedMergesJson(vocabulary)
                                 : MergesOfScoresJson(vocabulary);
  const std::string bos = vocabulary.tokens[vocabulary.bos_id].text;
  const Json bos_item = {{"SpecialToken", {{"id", bos}, {"type_id", 0}}}};
  const auto sequence = [](const char* id, int type_id) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type_id}}}};
  };
  const Json bos_second = {{"SpecialToken", {{"id", bos}, {"type_id", 1}}}};
  const Json post_processor = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({bos_item, sequence("A", 0)})},
      {"pair",
       Json::array({bos_item, sequence("A", 0), bos_second, sequence("B", 1)})},
      {"special_tokens",
       {{bos,
         {{"id", bos},
          {"ids", Json::array({vocabulary.bos_id})},
          {"tokens", Json::array({bos})}}}}},
  };
  const Json space_to_escape = {{"type", "Replace"},
                                {"pattern", {{"String", " "}}},
                                {"content", EscapeSpaces(" ")}};
  const Json escape_to_space = {{"type", "Replace"},
                                {"pattern", {{"String", EscapeSpaces(" ")}}},
                                {"content", " "}};
  const Json decoder = {
      {"type", "Sequence"},
      {"decoders", Json::array({escape_to_space, Json{{"type", "ByteFallback"}},
                                Json{{"type", "Fuse"}}})},
  };
  return absl::StrCat(
      "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\n"
      "\"added_tokens\":",
      AddedTokensJson(vocabulary), ",\n\"normalizer\":", Text(space_to_escape),
      ",\n\"pre_tokenizer\":null,\n\"post_processor\":", Text(post_processor),
      ",\n\"decoder\":", Text(decoder),
      ",\n\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":",
      Quoted(vocabulary.tokens[vocabulary.unknown_id].text),
      ",\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
      "\"fuse_unk\":true,\"byte_fallback\":true,\"ignore_merges\":false,\n"
      "\"vocab\":",
      VocabJson(vocabulary), ",\n\"merges\":", merges, "}}\n");
}

// The mask token, and the control tokens without a role: llama.cpp's converter
// takes no others for control tokens.
void AddSpecialTokens(const Vocabulary& vocabulary, Json& config) {
  if (vocabulary.mask_id >= 0) {
    config["mask_token"] = vocabulary.tokens[vocabulary.mask_id].text;
  }
  const std::set<int32_t> roles = {vocabulary.bos_id, vocabulary.eos_id,
                                   vocabulary.unknown_id, vocabulary.pad_id,
                                   vocabulary.mask_id};
  Json others = Json::array();
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    if (!IsControl(vocabulary, id) || roles.count(id) > 0) continue;
    others.push_back(vocabulary.tokens[id].text);
  }
  config["extra_special_tokens"] = others;
}

absl::StatusOr<std::string> TokenizerConfigJson(const Vocabulary& vocabulary,
                                                const GgufFile& file) {
  const auto text = [&](int32_t id) { return vocabulary.tokens[id].text; };
  Json config = {
      {"tokenizer_class", "GemmaTokenizer"},
      {"add_bos_token", true},
      {"add_eos_token", false},
      {"bos_token", text(vocabulary.bos_id)},
      {"eos_token", text(vocabulary.eos_id)},
      {"unk_token", text(vocabulary.unknown_id)},
      {"pad_token", text(vocabulary.pad_id)},
      {"clean_up_tokenization_spaces", false},
      {"spaces_between_special_tokens", false},
  };
  if (vocabulary.kind == TokenizerKind::kMerges) {
    AddSpecialTokens(vocabulary, config);
  }
  const std::string length_key = file.Has("gemma4.context_length")
                                     ? "gemma4.context_length"
                                     : "gemma3.context_length";
  if (file.Has(length_key)) {
    ASSIGN_OR_RETURN(const uint32_t length, file.GetU32(length_key));
    config["model_max_length"] = length;
  }
  if (file.Has("tokenizer.chat_template")) {
    ASSIGN_OR_RETURN(const std::string chat_template,
                     file.GetString("tokenizer.chat_template"));
    config["chat_template"] = chat_template;
  }
  return Text(config, 2) + "\n";
}

}  // namespace

absl::StatusOr<std::map<std::string, std::string>> HfTokenizerFiles(
    const GgufFile& file) {
  ASSIGN_OR_RETURN(const Vocabulary vocabulary, VocabularyFromGguf(file));
  std::map<std::string, std::string> files;
  ASSIGN_OR_RETURN(files["tokenizer_config.json"],
                   TokenizerConfigJson(vocabulary, file));
  files["tokenizer.json"] = TokenizerJson(vocabulary);
  if (vocabulary.kind == TokenizerKind::kScores) {
    files["tokenizer.model"] = SerializeModelProto(vocabulary);
  }
  return files;
}

}  // namespace onegrid::model
