#include "services/model/tokenizer_json.h"

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"
#include "services/model/merge_list.h"

namespace onegrid::model {
namespace {

using Json = nlohmann::json;

constexpr char kMergesKey[] = "model.merges";

// Tokens that are special, but shown to programs that read the text.
bool IsVisible(absl::string_view text) {
  static const auto* names = new std::set<absl::string_view>{
      "<|channel>",       "<channel|>",       "<|tool_call>", "<tool_call|>",
      "<|tool_response>", "<tool_response|>", "<|\"|>"};
  return names->count(text) > 0;
}

// The member `key` of an object; null if there is none or no object.
const Json& Member(const Json& json, const char* key) {
  static const Json* const kNull = new Json();
  if (!json.is_object()) return *kNull;
  const auto it = json.find(key);
  return it == json.end() ? *kNull : *it;
}

bool IsTrue(const Json& json) { return json.is_boolean() && json.get<bool>(); }

bool IsText(const Json& json, absl::string_view text) {
  return json.is_string() && json.get_ref<const std::string&>() == text;
}

// {"type": "Replace", "pattern": {"String": " "}, "content": "U+2581"}, on its
// own or as the one of a sequence.
bool EscapesSpaces(const Json& normalizer) {
  const Json& list = Member(normalizer, "normalizers");
  const Json& replace =
      list.is_array() && list.size() == 1 ? list[0] : normalizer;
  return IsText(Member(replace, "type"), "Replace") &&
         IsText(Member(Member(replace, "pattern"), "String"), " ") &&
         IsText(Member(replace, "content"), EscapeSpaces(" "));
}

// Gemma's own splits at spaces, of which the normalizer leaves none.
bool SplitsNothing(const Json& pre_tokenizer) {
  return pre_tokenizer.is_null() ||
         (IsText(Member(pre_tokenizer, "type"), "Split") &&
          IsText(Member(Member(pre_tokenizer, "pattern"), "String"), " "));
}

// What keeps the tokenizer from being of the kind that is read; "" if nothing.
std::string Unsupported(const Json& tokenizer) {
  const Json& model = Member(tokenizer, "model");
  const Json& type = Member(model, "type");
  if (!type.is_null() && !IsText(type, "BPE")) return "a model other than BPE";
  if (!IsTrue(Member(model, "byte_fallback"))) return "no byte fallback";
  if (IsTrue(Member(model, "ignore_merges"))) return "ignore_merges";
  for (const char* key :
       {"continuing_subword_prefix", "end_of_word_suffix", "dropout"}) {
    const Json& value = Member(model, key);
    if (!value.is_null() && !IsText(value, "")) return key;
  }
  if (!EscapesSpaces(Member(tokenizer, "normalizer"))) {
    return "a normalizer other than spaces to U+2581";
  }
  if (!SplitsNothing(Member(tokenizer, "pre_tokenizer"))) {
    return "a pre_tokenizer";
  }
  return "";
}

// Fills a vocabulary from the parts of the file.
class Reader {
 public:
  Reader(const std::string& path, int64_t vocab_size)
      : path_(path), vocab_size_(vocab_size) {
    vocabulary_.kind = TokenizerKind::kMerges;
  }

  absl::StatusOr<Vocabulary> Read(const Json& tokenizer) {
    const Json& model = Member(tokenizer, "model");
    const Json& vocab = Member(model, "vocab");
    const Json& added = Member(tokenizer, "added_tokens");
    if (!vocab.is_object()) return Corrupt("model.vocab is not an object");
    if (!added.is_null() && !added.is_array()) {
      return Corrupt("added_tokens is not a list");
    }
    // One more id than there can be tokens leaves a hole.
    ids_max_ = static_cast<int64_t>(vocab.size() + added.size());
    for (const auto& [text, id] : vocab.items()) {
      RETURN_IF_ERROR(Put(id, text, NormalType(id, text)));
    }
    for (const Json& token : added) RETURN_IF_ERROR(AddToken(token));
    RETURN_IF_ERROR(CheckTokens(path_, "model.vocab", vocabulary_));
    RETURN_IF_ERROR(ReadMerges(Member(model, "merges")));
    RETURN_IF_ERROR(SetId("<bos>", &vocabulary_.bos_id));
    RETURN_IF_ERROR(SetId("<eos>", &vocabulary_.eos_id));
    RETURN_IF_ERROR(SetId("<pad>", &vocabulary_.pad_id));
    SetId("<mask>", &vocabulary_.mask_id).IgnoreError();
    const Json& unknown = Member(model, "unk_token");
    RETURN_IF_ERROR(
        SetId(unknown.is_string() ? unknown.get<std::string>() : "<unk>",
              &vocabulary_.unknown_id));
    RETURN_IF_ERROR(CheckUnknown(path_, vocabulary_));
    return std::move(vocabulary_);
  }

 private:
  absl::Status Corrupt(const std::string& what) const {
    return CorruptFile(path_, what);
  }

  static TokenType NormalType(const Json& id, const std::string& text) {
    if (ByteOfToken(text) >= 0) return TokenType::kByte;
    const bool pad = id.is_number_unsigned() &&
                     text == absl::StrCat("[PAD", id.get<uint64_t>(), "]");
    return pad ? TokenType::kUnused : TokenType::kNormal;
  }

  absl::Status Put(const Json& id_json, const std::string& text,
                   TokenType type) {
    const uint64_t end = std::min(ids_max_, vocab_size_);
    if (!id_json.is_number_unsigned() || id_json.get<uint64_t>() >= end) {
      const std::string found =
          id_json.is_number() ? id_json.dump() : id_json.type_name();
      return Corrupt(absl::StrCat("the token '", text,
                                  "': expected an id below ", end, ", found ",
                                  found));
    }
    const uint64_t id = id_json.get<uint64_t>();
    std::vector<VocabularyToken>& tokens = vocabulary_.tokens;
    if (id >= tokens.size()) {
      tokens.resize(id + 1, {"", kNoScore, TokenType::kNormal});
    }
    if (!tokens[id].text.empty() && tokens[id].text != text) {
      return Corrupt(absl::StrCat("the tokens '", tokens[id].text, "' and '",
                                  text, "' both have the id ", id));
    }
    tokens[id].text = text;
    tokens[id].type = type;
    return absl::OkStatus();
  }

  absl::Status AddToken(const Json& token) {
    const Json& id = Member(token, "id");
    const Json& content = Member(token, "content");
    if (!content.is_string() || !id.is_number_unsigned()) {
      return Corrupt("added_tokens holds something other than tokens");
    }
    // Tokens of other inputs than text lie behind the embedding.
    if (id.get<uint64_t>() >= static_cast<uint64_t>(vocab_size_)) {
      return absl::OkStatus();
    }
    const std::string text = content.get<std::string>();
    for (const char* key : {"single_word", "lstrip", "rstrip"}) {
      if (!IsTrue(Member(token, key))) continue;
      return common::MakeError(
          absl::StatusCode::kUnimplemented, "UNSUPPORTED_TOKENIZER",
          absl::StrCat(path_, ": unsupported tokenizer: the added token '",
                       text, "' has ", key),
          {{"path", path_}});
    }
    const bool control = IsTrue(Member(token, "special")) && !IsVisible(text);
    return Put(id, text,
               control ? TokenType::kControl : TokenType::kUserDefined);
  }

  absl::Status ReadMerges(const Json& list) {
    if (!list.is_array()) {
      return Corrupt(absl::StrCat(kMergesKey, " is not a list"));
    }
    std::vector<MergeHalves> merges;
    merges.reserve(list.size());
    for (const Json& merge : list) {
      MergeHalves halves;  // Of two parts, or ResolveMerges refuses it.
      if (merge.is_string()) {
        halves = SplitMerge(merge.get_ref<const std::string&>());
      } else if (merge.is_array() && merge.size() == 2 &&
                 merge[0].is_string() && merge[1].is_string()) {
        halves = {merge[0].get_ref<const std::string&>(),
                  merge[1].get_ref<const std::string&>()};
      }
      merges.push_back(halves);
    }
    return ResolveMerges(path_, kMergesKey, merges, &vocabulary_);
  }

  absl::Status SetId(absl::string_view name, int32_t* id) const {
    for (size_t i = 0; i < vocabulary_.tokens.size(); ++i) {
      if (vocabulary_.tokens[i].text != name) continue;
      *id = static_cast<int32_t>(i);
      return absl::OkStatus();
    }
    return Corrupt(absl::StrCat("no token '", name, "'"));
  }

  const std::string& path_;
  const int64_t vocab_size_;
  int64_t ids_max_ = 0;
  Vocabulary vocabulary_;
};

}  // namespace

absl::StatusOr<Vocabulary> VocabularyFromTokenizerJson(absl::string_view text,
                                                       const std::string& path,
                                                       int64_t vocab_size) {
  const Json tokenizer = Json::parse(text.begin(), text.end(), nullptr,
                                     /*allow_exceptions=*/false);
  if (!tokenizer.is_object()) return CorruptFile(path, "not a JSON object");
  const std::string unsupported = Unsupported(tokenizer);
  if (!unsupported.empty()) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_TOKENIZER",
        absl::StrCat(path, ": unsupported tokenizer: it has ", unsupported),
        {{"path", path}, {"found", unsupported}});
  }
  return Reader(path, vocab_size).Read(tokenizer);
}

}  // namespace onegrid::model
